# ILLUSTRATIVE, NOT MEASURED on any machine. The order of what is published for a model of 7 billion
# parameters with plain multi-head attention in 16 bits on one accelerator of 80 GB at 2 TB/s:
#   step            14 GB of weights read once, and what launching a step costs
#   prefill         14 GFLOP a token at some 200 TFLOP/s
#   decode_context  512 KiB of keys and values a token, read at some 1.5 TB/s
# Its cache takes 512 KiB a token: lathe.model { "sim", kv_bytes_per_token = 524288, profile = … }.
step_us = 9500
prefill_us = 70
prefill_context_ns = 3.5
decode_us = 50
decode_context_ns = 350
padding_us = 70
swap_us = 350
