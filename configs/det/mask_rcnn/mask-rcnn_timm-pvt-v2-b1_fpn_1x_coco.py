_base_ = 'mask-rcnn_timm-efficientvit-m5_fpn_1x_coco.py'

model = dict(backbone=dict(backbone=dict(model_name='pvt_v2_b1')))
