# ILLUSTRATIVE, NOT MEASURED on any machine. The order of what is published for a model of 8 billion
# parameters with grouped queries (8 of 32 heads keep keys and values) in 16 bits on one accelerator
# of 80 GB at 3.3 TB/s:
#   step            16 GB of weights read once, and what launching a step costs
#   prefill         16 GFLOP a token at some 400 TFLOP/s
#   decode_context  128 KiB of keys and values a token, read at some 2.5 TB/s
# Its cache takes 128 KiB a token: lathe.model { "sim", kv_bytes_per_token = 131072, profile = … }.
step_us = 7000
prefill_us = 40
prefill_context_ns = 1.7
decode_us = 40
decode_context_ns = 52
padding_us = 40
swap_us = 90
