_base_ = 'mambaout-femto_8xb512-300e_in1k-224px.py'

model = dict(model_name='mambaout_tiny', drop_path_rate=0.2)
