# Device code: nvcc is found and used by itself, without CMake's CUDA language, which would want a toolkit to configure at all.
#
#   DJINN_NVCC                              nvcc of CUDA 13 or later; empty where there is none, and in sanitizer and fuzzer builds
#   djinn_fatbins(folder ret_files)         one fatbin a family (gpu_worker/kernels/cuda/kernels.def) in `folder`, from its .cu file;
#                                           an empty one for a family that has none
#
# Compiled for 8.0 and 9.0, with PTX for what comes later.

include_guard(GLOBAL)

set(DJINN_NVCC_LEAST 13)
set(DJINN_NVCC "")
if(NOT DJINN_SANITIZE AND NOT DJINN_FUZZ)
    file(GLOB toolkits "/usr/local/cuda*/bin")
    list(SORT toolkits COMPARE NATURAL ORDER DESCENDING)
    find_program(DJINN_NVCC_PROGRAM nvcc HINTS ENV CUDA_PATH PATH_SUFFIXES bin PATHS ${toolkits})
    if(DJINN_NVCC_PROGRAM)
        execute_process(COMMAND "${DJINN_NVCC_PROGRAM}" --version OUTPUT_VARIABLE version ERROR_QUIET)
        string(REGEX MATCH "release ([0-9]+)\\.[0-9]+" version "${version}")
        if(version AND CMAKE_MATCH_1 GREATER_EQUAL DJINN_NVCC_LEAST)
            set(DJINN_NVCC "${DJINN_NVCC_PROGRAM}")
            message(STATUS "CUDA: ${DJINN_NVCC} (${version}); libdjinn_cuda.so is built")
        else()
            message(STATUS "CUDA: ${DJINN_NVCC_PROGRAM} is not of CUDA ${DJINN_NVCC_LEAST} (${version}); libdjinn_cuda.so is not built, workers use the CPU")
        endif()
    else()
        message(STATUS "CUDA: no nvcc on PATH or in /usr/local/cuda*/bin; libdjinn_cuda.so is not built, workers use the CPU")
    endif()
endif()

function(djinn_fatbins folder ret_files)
    set(source "${CMAKE_SOURCE_DIR}/gpu_worker/kernels/cuda")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${source}/kernels.def")
    file(STRINGS "${source}/kernels.def" rows REGEX "^FAMILY\\(")
    file(GLOB written CONFIGURE_DEPENDS "${source}/*.cu")
    file(MAKE_DIRECTORY "${folder}")
    set(files "")
    foreach(row IN LISTS rows)
        string(REGEX REPLACE "^FAMILY\\(([a-z0-9_]+)\\).*" "\\1" family "${row}")
        set(fatbin "${folder}/${family}.fatbin")
        # Chains of pointwise ops give the bits of single ones (chain.h), so nothing depends on which sums of products the compiler sees together.
        set(options "")
        if(family STREQUAL "pointwise")
            set(options -fmad=false)
        endif()
        if("${source}/${family}.cu" IN_LIST written)
            add_custom_command(
                OUTPUT "${fatbin}"
                COMMAND "${DJINN_NVCC}" -fatbin --compress-mode=size -std=c++17 -O3 ${options} -Werror all-warnings "-I${CMAKE_SOURCE_DIR}"
                        -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 -gencode arch=compute_90,code=compute_90
                        -MD -MF "${fatbin}.d" -MT "${fatbin}" -o "${fatbin}" "${source}/${family}.cu"
                DEPENDS "${source}/${family}.cu" DEPFILE "${fatbin}.d" COMMENT "Compiling ${family}.cu for GPUs" VERBATIM)
        else()
            add_custom_command(OUTPUT "${fatbin}" COMMAND "${CMAKE_COMMAND}" -E touch "${fatbin}" COMMENT "${family} has no device code" VERBATIM)
        endif()
        list(APPEND files "${fatbin}")
    endforeach()
    set(${ret_files} "${files}" PARENT_SCOPE)
endfunction()
