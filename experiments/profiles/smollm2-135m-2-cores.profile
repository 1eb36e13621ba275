# SmolLM2-135M-Instruct on two virtual cores (AMD EPYC, AVX-512), at most 8 sequences together: fitted by
# experiments/sim_fidelity.lua; what it predicts well and what not stands in results/sim_fidelity.md.
# residuals, all: 1213 steps, median error 5.0%, 90% within 12.7%, R² 0.8368
# residuals, decode only: 798 steps, median error 5.5%, 90% within 11.8%, R² 0.6847
# residuals, prefill only: 180 steps, median error 2.7%, 90% within 9.9%, R² 0.7498
# residuals, mixed: 235 steps, median error 6.0%, 90% within 46.8%, R² 0.5609
step_us = 0
floor_us = 0
prefill_us = 0
prefill_context_ns = 463.667
decode_us = 0
decode_context_ns = 354.038
padding_us = 0
noise = 0.069642
rows_us = 1:2603.44, 2:3498.09, 3:5162.08, 4:4082.79, 5:5178.12, 6:6498.29, 7:8011.14, 8:6969.97, 9:21690.8, 10:21614, 11:28869.2, 12:17927, 13:23199.3, 14:24317.6, 15:29029.9, 16:22093.2, 20:26819.8, 24:28012.6, 28:32370, 32:35032.9, 40:42352.7, 48:51741.1, 64:61726.6, 80:76481.5, 96:89884.9, 112:103438, 128:124208
rest_us = 1:4629.59, 2:3777.31, 3:9708.1
outputs_us = 1:5381.58, 2:6872.31, 3:7130.95, 4:7376.66, 5:8260.39, 6:9363.21, 7:9290.34, 8:9449.61
