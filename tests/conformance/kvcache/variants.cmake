# Other options that the same plugin must keep its promises with.
set(variants_kvcache_prefix hash_bits=0 block_tokens=1,evict=lfu,preempt=swap share=session)
