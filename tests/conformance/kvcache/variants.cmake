# Other block sizes, and budgets; `blocks` keeps the pool short.
set(variants_kvcache_paged block_tokens=1 block_tokens=7,preempt=swap dtype=q8_0,blocks=40)
set(variants_kvcache_window budget=1,block_tokens=4,blocks=18 budget=24,block_tokens=7,blocks=24 budget=150,block_tokens=16
  pool_budget=300,blocks=36,block_tokens=8 preempt=evict,block_tokens=8,blocks=26)
set(variants_kvcache_sinks budget=24,block_tokens=7,blocks=28 sinks=20,budget=33,block_tokens=8,blocks=30,positions=original
  sinks=0,budget=24,block_tokens=4,blocks=44 pool_budget=30,blocks=30,block_tokens=4 sinks=1,preempt=evict,block_tokens=8,blocks=26)
