# The published teacher. Its weights are not downloaded for you:
# tresnet_v2_l.miil_in21k_ft_in1k of timm, or the file that came with
# arXiv:2204.03475, tresnet_l_v2_83_9.pth (83.9 % top-1).
distillation = dict(
    type='mmmobilemamba.DistilledClassifier',
    # Un-normalised pixels in [0, 1]; timm knows the model's normalisation.
    teacher=dict(type='TimmClassifier', model_name='tresnet_v2_l'),
    teacher_ckpt='checkpoints/tresnet_v2_l.pth',
    teacher_size=224,
    distill_mode='soft',
    distill_weight=5.0,
    temperature=1.0,
)
