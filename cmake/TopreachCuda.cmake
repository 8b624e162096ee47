# Adds the CUDA kernels to the library, if TOPREACH_CUDA (auto, on, off) says so.
#
# Needed: a CUDA build of torch, and an nvcc of the same major version. nvcc is that of the environment
# variable CUDACXX, of the Python environment (pip install "cuda-toolkit[nvcc,nvvm,crt]==13.0.*"), on the
# PATH, or in /usr/local/cuda*. A GPU and the rest of the toolkit are not needed: headers and libcudart
# are those of nvcc or torch. CMAKE_CUDA_ARCHITECTURES sets the GPUs to build for.
#
# Sets TOPREACH_CUDA_VERSION, "" for a library without CUDA.
set(TOPREACH_CUDA_VERSION "")

# Ends the search: with an error for `on`, a status line for `auto`.
macro(topreach_no_cuda reason)
  if(TOPREACH_CUDA STREQUAL "on")
    message(FATAL_ERROR "topreach: TOPREACH_CUDA=on, but ${reason}")
  endif()
  message(STATUS "topreach: without CUDA (${reason})")
  return()
endmacro()

if(TOPREACH_CUDA STREQUAL "off")
  message(STATUS "topreach: without CUDA (TOPREACH_CUDA=off)")
  return()
elseif(NOT TOPREACH_CUDA MATCHES "^(auto|on)$")
  message(FATAL_ERROR "topreach: TOPREACH_CUDA must be auto, on or off, got '${TOPREACH_CUDA}'")
endif()

# ---- torch --------------------------------------------------------------------------------------
if(NOT TOPREACH_TORCH_CUDA AND TARGET c10_cuda)  # LibTorch, found by its CMake package
  set(TOPREACH_TORCH_CUDA ${CUDA_VERSION})
endif()
if(NOT TOPREACH_TORCH_CUDA)
  topreach_no_cuda("torch ${TOPREACH_TORCH_VERSION} is a build without CUDA; install one with it: \
python -m pip install torch==2.11.0")
endif()
string(REGEX MATCH "^[0-9]+" cuda_major "${TOPREACH_TORCH_CUDA}")
get_filename_component(torch_lib "${TOPREACH_LIB_torch}" DIRECTORY)
set(wheel_root "${torch_lib}/../../nvidia/cu${cuda_major}")  # the packages that torch's wheel depends on

# ---- nvcc ---------------------------------------------------------------------------------------
set(nvcc_hint "python -m pip install \"cuda-toolkit[nvcc,nvvm,crt]==${TOPREACH_TORCH_CUDA}.*\"")
find_program(
  TOPREACH_NVCC nvcc
  PATHS ${wheel_root}/bin ENV PATH ENV CUDA_HOME ENV CUDA_PATH
        /usr/local/cuda-${TOPREACH_TORCH_CUDA} /usr/local/cuda
  PATH_SUFFIXES bin
  NO_DEFAULT_PATH)
if(CMAKE_CUDA_COMPILER)
  set(nvcc "${CMAKE_CUDA_COMPILER}")
elseif(EXISTS "$ENV{CUDACXX}")
  set(nvcc "$ENV{CUDACXX}")
else()
  set(nvcc "${TOPREACH_NVCC}")
endif()
if(NOT nvcc)
  topreach_no_cuda("nvcc was not found; install it beside torch: ${nvcc_hint}")
endif()
execute_process(COMMAND ${nvcc} --version OUTPUT_VARIABLE nvcc_version ERROR_QUIET)
string(REGEX MATCH "release ([0-9]+)\\.([0-9]+)" _ "${nvcc_version}")
if(NOT CMAKE_MATCH_1 STREQUAL cuda_major)
  topreach_no_cuda("${nvcc} is of CUDA ${CMAKE_MATCH_1}.${CMAKE_MATCH_2} and torch of CUDA \
${TOPREACH_TORCH_CUDA}; install the same: ${nvcc_hint}")
endif()
if(CMAKE_VERSION VERSION_LESS 3.25.2)
  # Earlier versions do not know nvcc's flag for C++20.
  topreach_no_cuda("cmake ${CMAKE_VERSION} is too old; take a newer one: \
python -m pip install cmake ninja")
endif()

# ---- the language -------------------------------------------------------------------------------
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 90)  # the PTX of 90 serves all later ones
endif()
set(CMAKE_CUDA_COMPILER ${nvcc})
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
# nvcc from the wheels looks for its libraries in lib64, but they are in lib. CMake's trial build needs
# them to link.
get_filename_component(cuda_root "${nvcc}" REALPATH)
get_filename_component(cuda_root "${cuda_root}/../.." ABSOLUTE)
set(environment_before "$ENV{LIBRARY_PATH}")
set(ENV{LIBRARY_PATH} "${cuda_root}/lib:${cuda_root}/lib64:${environment_before}")
enable_language(CUDA)
set(ENV{LIBRARY_PATH} "${environment_before}")

find_file(TOPREACH_CUDART NAMES libcudart.so.${cuda_major}
          PATHS ${wheel_root}/lib ${torch_lib} ${cuda_root}/lib64 ${cuda_root}/lib
                ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES}
          NO_DEFAULT_PATH)
if(TARGET c10_cuda)
  set(c10_cuda c10_cuda)
else()
  find_library(TOPREACH_LIB_c10_cuda c10_cuda PATHS ${torch_lib} NO_DEFAULT_PATH REQUIRED)
  set(c10_cuda ${TOPREACH_LIB_c10_cuda})
endif()
if(NOT TOPREACH_CUDART)
  topreach_no_cuda("libcudart.so.${cuda_major} was not found; install it beside torch: \
python -m pip install \"cuda-toolkit[cudart]==${TOPREACH_TORCH_CUDA}.*\"")
endif()

# ---- the library's part -------------------------------------------------------------------------
# As on the CPU: no contraction, so that the bits are the same, and no approximate division or square root.
file(GLOB cuda_kernels CONFIGURE_DEPENDS kernels/cuda/*.cu)
file(GLOB cuda_ops CONFIGURE_DEPENDS csrc/ops/cuda/*.cpp)
add_library(topreach_cuda OBJECT ${cuda_kernels})
target_compile_options(
  topreach_cuda PRIVATE -fmad=false -prec-div=true -prec-sqrt=true -ftz=false
                        -Xcompiler=-Wall,-Wextra,-ffp-contract=off
                        -diag-suppress=39)  # 0/0, by which special.h makes a NaN
if(TOPREACH_WERROR)
  target_compile_options(topreach_cuda PRIVATE -Werror=all-warnings)
endif()
target_sources(topreach PRIVATE ${cuda_ops} $<TARGET_OBJECTS:topreach_cuda>)
set_source_files_properties(
  ${cuda_ops} PROPERTIES INCLUDE_DIRECTORIES "${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES}")
target_link_libraries(topreach PRIVATE ${c10_cuda} ${TOPREACH_CUDART})
set_target_properties(topreach topreach_cuda PROPERTIES LINKER_LANGUAGE CXX
                                                        CUDA_RUNTIME_LIBRARY None)
set_property(TARGET topreach APPEND PROPERTY INSTALL_RPATH
                                            "$ORIGIN/../../nvidia/cu${cuda_major}/lib")
set(TOPREACH_CUDA_VERSION ${TOPREACH_TORCH_CUDA})
message(STATUS "topreach: with CUDA ${TOPREACH_TORCH_CUDA} (${nvcc}, architectures "
               "${CMAKE_CUDA_ARCHITECTURES})")
