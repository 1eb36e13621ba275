# Options under which a model takes another way.
set(variants_model_sim rows_us=4:100,rest_us=1:9,outputs_us=2:40,noise=0.1)
