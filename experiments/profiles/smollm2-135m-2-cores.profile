# SmolLM2-135M-Instruct on two cores. Measured, but not a fit: read off results/prefill_vs_sgemm.md
# (a prefill of 512 tokens in 0.543 s; steps of 1, 4 and 8 sequences decoded together in 7.64, 10.04
# and 15.14 ms), which says nothing of context or noise. A fit of this machine: experiments/calibrate.lua.
step_us = 6500
prefill_us = 1050
decode_us = 1050
padding_us = 1050
