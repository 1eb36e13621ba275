# Each instruction set in a file of its own, so that nothing else is compiled for it. Optimised
# in every build: a debug build's model would otherwise take minutes for its tests.
set_source_files_properties(${folder}/plain.c ${folder}/integer_plain.c ${folder}/packed.c
  PROPERTIES COMPILE_OPTIONS "-O3")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(${folder}/avx2.c PROPERTIES COMPILE_OPTIONS "-O3;-mavx2;-mfma;-mf16c")
  set_source_files_properties(${folder}/avx512.c PROPERTIES
    COMPILE_OPTIONS "-O3;-mavx2;-mfma;-mf16c;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mprefer-vector-width=512")
  set_source_files_properties(${folder}/integer_avx2.c PROPERTIES COMPILE_OPTIONS "-O3;-mavx2;-mfma;-mf16c")
  set_source_files_properties(${folder}/integer_avx_vnni.c PROPERTIES
    COMPILE_OPTIONS "-O3;-mavx2;-mfma;-mf16c;-mavxvnni")
  set_source_files_properties(${folder}/integer_avx512_vnni.c PROPERTIES
    COMPILE_OPTIONS "-O3;-mavx2;-mfma;-mf16c;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mprefer-vector-width=512")
endif()
target_link_libraries(${target} PUBLIC Threads::Threads m)
