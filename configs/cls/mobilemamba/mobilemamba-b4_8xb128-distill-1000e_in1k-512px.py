_base_ = [
    './mobilemamba-b4_8xb128-300e_in1k-512px.py',
    '../_base_/tresnet_v2_l_teacher.py',
]

model = dict(**_base_.distillation)

max_epochs = 1000
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(
    end=max_epochs, T_max=max_epochs - _base_.warmup_epochs
)
train_cfg = dict(max_epochs=max_epochs)
