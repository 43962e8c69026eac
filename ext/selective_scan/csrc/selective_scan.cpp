// Schemas. Each device, autocast and (in Python) autograd registers itself.
#include <Python.h>
#include <torch/library.h>

TORCH_LIBRARY(selective_scan, m) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag,
                                     at::Tag::needs_fixed_stride_order};
  m.def(
      "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
      "Tensor? D=None, Tensor? delta_bias=None, bool delta_softplus=False, "
      "bool reverse=False) -> Tensor",
      tags);
  m.def(
      "selective_scan_backward(Tensor grad, Tensor u, Tensor delta, Tensor A, "
      "Tensor B, Tensor C, Tensor? D=None, Tensor? delta_bias=None, "
      "bool delta_softplus=False, bool reverse=False) -> (Tensor, Tensor, "
      "Tensor, Tensor, Tensor, Tensor, Tensor)",
      tags);
  m.def(
      "bidirectional_scan(Tensor u, Tensor proj, Tensor dt_proj, "
      "Tensor dt_bias, Tensor A, Tensor D) -> Tensor",
      tags);
  m.def(
      "bidirectional_scan_backward(Tensor grad, Tensor u, Tensor proj, "
      "Tensor dt_proj, Tensor dt_bias, Tensor A, Tensor D) -> (Tensor, "
      "Tensor, Tensor, Tensor, Tensor, Tensor)",
      tags);
  m.def(
      "depthwise_conv2d(Tensor x, Tensor weight, Tensor? bias=None, "
      "str activation=\"none\", Tensor? scale=None, Tensor? shift=None) -> "
      "Tensor",
      tags);
  m.def("wavelet_conv2d(Tensor x, Tensor weight) -> Tensor", tags);
  m.def(
      "wavelet_conv2d_backward(Tensor grad, Tensor x, Tensor weight) -> "
      "(Tensor, Tensor)",
      tags);
  m.def(
      "gated_layer_norm(Tensor x, Tensor z, Tensor weight, Tensor bias, "
      "float eps=1e-5) -> Tensor",
      tags);
  m.def(
      "gated_layer_norm_backward(Tensor grad, Tensor x, Tensor z, "
      "Tensor weight, Tensor bias, float eps=1e-5) -> (Tensor, Tensor, "
      "Tensor, Tensor)",
      tags);
  m.def("packed_wavelet_conv2d(Tensor x, Tensor weight) -> Tensor", tags);
  m.def(
      "dense_conv2d(Tensor x, Tensor weight, Tensor? bias, int channels, "
      "int[2] kernel_size=1, int[2] stride=1, int[2] padding=0, "
      "str activation=\"none\", Tensor? add=None) -> Tensor",
      tags);
  m.def(
      "feed_forward(Tensor x, Tensor first, Tensor? first_bias, "
      "Tensor second, Tensor? second_bias, int hidden, "
      "str activation=\"relu\", Tensor? filter=None, "
      "Tensor? filter_bias=None, Tensor? add=None) -> Tensor",
      tags);
  m.def("cpu_variant() -> str");
  m.def("set_cpu_variant(str name) -> ()");
}

// An empty module, so that `import` loads the library on every platform.
PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C"};
  return PyModule_Create(&module);
}
