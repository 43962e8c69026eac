# The published teacher, TResNet-L v2. Its weights are not downloaded for you:
# the file of timm/tresnet_v2_l.miil_in21k_ft_in1k, .safetensors or .bin.
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
