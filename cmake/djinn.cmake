# The four functions that every folder's CMakeLists.txt uses, and the directories that they agree on.
#
#   djinn_library(name [DEPENDS library...] [SYSTEM library...] [EXTRA source...])   one static library a folder, from its *.c
#   djinn_tests([DEPENDS library...] [SYSTEM library...] [TIMEOUT seconds])         one cmocka program per *_test.c, in CTest
#   djinn_benches([DEPENDS library...] [SYSTEM library...])                         one program per *_bench.c
#   djinn_fuzzers([DEPENDS library...] [SYSTEM library...])                         one libFuzzer program per *_fuzz.c
#
# DEPENDS names libraries of this tree (the include rule of docs/design.md is checked on them by tests/lint); SYSTEM names
# everything else (imported targets, -l names). EXTRA adds generated sources, which are compiled without our warnings.
#
#   DJINN_BIN_DIR, DJINN_LIB_DIR     where `djinn` and libdjinn.so go
#   DJINN_PYTHON_DIR                 the root that the virtual environment's .pth file points at: djinn/*.py, djinn/_djinn.abi3.so ...
#   DJINN_GENERATED_DIR              root of generated headers, on the include path
#   DJINN_PYTHON, DJINN_TORCH_DIR    the interpreter, and the folder of its torch package; empty where there is none

include_guard(GLOBAL)

set(DJINN_OUTPUT "${CMAKE_BINARY_DIR}" CACHE PATH "Folder that gets bin/, lib/ and python/")
set(DJINN_SANITIZE "" CACHE STRING "Sanitizers for the C code: address,undefined or thread; empty for none")
option(DJINN_FUZZ "Build the fuzzers (needs clang)" OFF)

set(DJINN_BIN_DIR "${DJINN_OUTPUT}/bin")
set(DJINN_LIB_DIR "${DJINN_OUTPUT}/lib")
set(DJINN_PYTHON_DIR "${DJINN_OUTPUT}/python")
set(DJINN_GENERATED_DIR "${CMAKE_BINARY_DIR}/generated")
file(MAKE_DIRECTORY "${DJINN_GENERATED_DIR}")

set(DJINN_WARNINGS -Wall -Wextra -Wconversion -Wshadow)
# Not with sanitizers, whose added code makes gcc warn of what cannot be: what they build, the plain tree builds too.
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND NOT DJINN_SANITIZE)
    list(APPEND DJINN_WARNINGS -Werror)
endif()

set(DJINN_PYTHON "" CACHE FILEPATH "The interpreter that the Python package is built for")
if(NOT DJINN_PYTHON AND EXISTS "${CMAKE_SOURCE_DIR}/build/venv/bin/python")
    set(DJINN_PYTHON "${CMAKE_SOURCE_DIR}/build/venv/bin/python")
endif()
set(DJINN_TORCH_DIR "")
if(DJINN_PYTHON)
    # find_spec and not import: importing torch costs a second and a half at every configuration.
    execute_process(
        COMMAND "${DJINN_PYTHON}" -c
                "import importlib.util as u, os; s = u.find_spec('torch'); print(os.path.dirname(s.origin) if s and s.origin else '', end='')"
        OUTPUT_VARIABLE DJINN_TORCH_DIR ERROR_QUIET)
endif()

# Options of every C target of this tree.
function(djinn_compile_options target)
    # Linux's own calls (pipe2, accept4) are declared everywhere; empty, so that a file that defines it too does not redefine it.
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:C>:${DJINN_WARNINGS};-D_GNU_SOURCE=>" -fvisibility=hidden)
    target_include_directories(${target} PRIVATE "${CMAKE_SOURCE_DIR}" "${DJINN_GENERATED_DIR}")
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
endfunction()

function(djinn_library name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "DEPENDS;SYSTEM;EXTRA")
    if(arg_UNPARSED_ARGUMENTS)
        message(FATAL_ERROR "djinn_library(${name}): unknown arguments ${arg_UNPARSED_ARGUMENTS}")
    endif()
    file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.c")
    if(NOT sources AND NOT arg_EXTRA)
        add_library(${name} INTERFACE)
        target_link_libraries(${name} INTERFACE ${arg_DEPENDS} ${arg_SYSTEM})
        return()
    endif()
    add_library(${name} STATIC ${sources} ${arg_EXTRA})
    djinn_compile_options(${name})
    target_link_libraries(${name} PUBLIC ${arg_DEPENDS} ${arg_SYSTEM})
    foreach(file IN LISTS arg_EXTRA)
        set_source_files_properties("${file}" PROPERTIES COMPILE_OPTIONS "-w")
    endforeach()
endfunction()

# The mirror path as a name: tests/core/base/arena_test.c -> core_base_arena_test.
function(djinn_mirror_name file ret)
    file(RELATIVE_PATH path "${CMAKE_SOURCE_DIR}/tests" "${file}")
    string(REGEX REPLACE "\\.c$" "" path "${path}")
    string(REPLACE "/" "_" path "${path}")
    set(${ret} "${path}" PARENT_SCOPE)
endfunction()

function(djinn_tests)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "TIMEOUT" "DEPENDS;SYSTEM")
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 120)
    endif()
    file(GLOB files CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*_test.c")
    foreach(file IN LISTS files)
        djinn_mirror_name("${file}" name)
        add_executable(${name} EXCLUDE_FROM_ALL "${file}")
        djinn_compile_options(${name})
        target_link_libraries(${name} PRIVATE tests_lib ${arg_DEPENDS} ${arg_SYSTEM})
        set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
        add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
        set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT})
        add_dependencies(djinn_all_tests ${name})
    endforeach()
endfunction()

# A comparison of our declarations with headers that may not be installed (`header`, looked for in CUDA toolkits): a test where they are, nothing
# where they are not.
function(djinn_header_check file header)
    cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "DEPENDS")
    file(GLOB toolkits "/usr/local/cuda*/include")
    string(MAKE_C_IDENTIFIER "DJINN_FOLDER_OF_${header}" folder)
    find_path(${folder} ${header} HINTS ENV CUDA_PATH PATH_SUFFIXES include PATHS ${toolkits})
    if(NOT ${folder})
        return()
    endif()
    djinn_mirror_name("${CMAKE_CURRENT_SOURCE_DIR}/${file}" name)
    add_executable(${name} EXCLUDE_FROM_ALL "${file}")
    djinn_compile_options(${name})
    target_include_directories(${name} SYSTEM PRIVATE "${${folder}}")
    target_link_libraries(${name} PRIVATE tests_lib ${arg_DEPENDS})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
    add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
    add_dependencies(djinn_all_tests ${name})
endfunction()

function(djinn_benches)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "" "DEPENDS;SYSTEM")
    file(GLOB files CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*_bench.c")
    foreach(file IN LISTS files)
        djinn_mirror_name("${file}" name)
        add_executable(${name} EXCLUDE_FROM_ALL "${file}")
        djinn_compile_options(${name})
        target_link_libraries(${name} PRIVATE ${arg_DEPENDS} ${arg_SYSTEM})
        set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bench")
        add_dependencies(djinn_all_benches ${name})
    endforeach()
endfunction()

function(djinn_fuzzers)
    if(NOT DJINN_FUZZ)
        return()
    endif()
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "" "DEPENDS;SYSTEM")
    file(GLOB files CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*_fuzz.c")
    foreach(file IN LISTS files)
        djinn_mirror_name("${file}" name)
        add_executable(${name} EXCLUDE_FROM_ALL "${file}")
        djinn_compile_options(${name})
        target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
        target_link_options(${name} PRIVATE -fsanitize=fuzzer)
        target_link_libraries(${name} PRIVATE ${arg_DEPENDS} ${arg_SYSTEM})
        set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/fuzz")
        add_dependencies(djinn_all_fuzzers ${name})
    endforeach()
endfunction()
