# Options under which a scheduler promises something else, or takes another way.
set(variants_scheduler_sjf preemptive=true aging_s=2 preemptive=true,aging_s=2,unknown=prompt key=output)
set(variants_scheduler_srpt preemptive=false preempt=recompute key=output,outrun=double unknown=prompt)
set(variants_scheduler_priority aging_s=2 preemptive=true,aging_s=2 preemptive=true,preempt=recompute)
set(variants_scheduler_mlfq preempt=recompute starve_s=0 levels=1 quantum=1,factor=1,starve_s=1,preempt=recompute)
set(variants_scheduler_edf preemptive=false late=last late=drop-to-end target=request)
set(variants_scheduler_hrrn key=output,unknown=prompt)
set(variants_scheduler_vtc charge_cached=true preempt_margin=20 w_p=0,w_q=1)
set(variants_scheduler_prefix aging_s=0 window=3,looks=1 looks=2)
