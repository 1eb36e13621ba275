# Other block sizes, and budgets; `blocks` keeps the pool short.
set(variants_kvcache_paged block_tokens=1 block_tokens=7,preempt=swap dtype=q8_0,blocks=40)
set(variants_kvcache_window budget=1,block_tokens=4,blocks=18 budget=24,block_tokens=7,blocks=24 budget=150,block_tokens=16
  pool_budget=300,blocks=36,block_tokens=8 preempt=evict,block_tokens=8,blocks=26)
set(variants_kvcache_sinks budget=24,block_tokens=7,blocks=28 sinks=20,budget=33,block_tokens=8,blocks=30,positions=original
  sinks=0,budget=24,block_tokens=4,blocks=44 pool_budget=30,blocks=30,block_tokens=4 sinks=1,preempt=evict,block_tokens=8,blocks=26)
set(choices budget=1,block_tokens=4,blocks=18 budget=24,block_tokens=7,blocks=34 budget=24,scope=layer,block_tokens=3,blocks=90
  budget=33,scope=head,block_tokens=8,blocks=50 budget=20,recent_share=0,block_tokens=4,blocks=60
  budget=20,recent_share=1,block_tokens=4,blocks=44 pool_budget=150,scope=head,blocks=50,block_tokens=8
  preempt=evict,scope=head,block_tokens=8,blocks=60)
set(variants_kvcache_h2o ${choices})
set(variants_kvcache_random ${choices})
set(variants_kvcache_contiguous reserve_tokens=120,block_tokens=7 block_tokens=1,reserve_tokens=1000)
# Other options that the same plugin must keep its promises with.
set(variants_kvcache_prefix hash_bits=0 block_tokens=1,evict=lfu,preempt=swap share=session)
