"""Necks that the published models need and the host libraries lack."""

from .deconv_fpn import DeconvFPN

__all__ = ['DeconvFPN']
