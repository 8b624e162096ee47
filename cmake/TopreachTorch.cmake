# The torch to build against, as the interface target `topreach_torch`.
#
# If a Python can import torch, torch's own list of include and library folders is used. Unlike torch's
# CMake package, this needs no CUDA toolkit. Otherwise find_package(Torch) looks for LibTorch (give
# -DCMAKE_PREFIX_PATH=<libtorch>).
#
# Sets TOPREACH_TORCH_VERSION and TOPREACH_TORCH_CUDA (the CUDA version of torch, or "").
find_package(Python COMPONENTS Interpreter QUIET)
set(python_torch "")
if(Python_FOUND)
  execute_process(
    COMMAND
      ${Python_EXECUTABLE} -c
      "import torch
from torch.utils import cpp_extension as e
paths = lambda f: ';'.join(p for p in f())
print(torch.__version__, torch.version.cuda or '', int(torch._C._GLIBCXX_USE_CXX11_ABI),
      paths(e.include_paths), paths(e.library_paths), sep='|')"
    OUTPUT_VARIABLE python_torch
    ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
endif()

add_library(topreach_torch INTERFACE)
if(python_torch)
  string(REPLACE ";" "," python_torch "${python_torch}")
  string(REPLACE "|" ";" fields "${python_torch}")
  list(GET fields 0 TOPREACH_TORCH_VERSION)
  list(GET fields 1 TOPREACH_TORCH_CUDA)
  list(GET fields 2 abi)
  list(GET fields 3 include_dirs)
  list(GET fields 4 library_dirs)
  string(REPLACE "," ";" include_dirs "${include_dirs}")
  string(REPLACE "," ";" library_dirs "${library_dirs}")
  target_include_directories(topreach_torch SYSTEM INTERFACE ${include_dirs})
  target_compile_definitions(topreach_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=${abi})
  foreach(name torch torch_cpu c10)
    find_library(TOPREACH_LIB_${name} ${name} PATHS ${library_dirs} NO_DEFAULT_PATH REQUIRED)
    target_link_libraries(topreach_torch INTERFACE ${TOPREACH_LIB_${name}})
  endforeach()
else()
  find_package(Torch QUIET)
  if(NOT Torch_FOUND)
    message(FATAL_ERROR "topreach needs torch. Either name a Python that has it "
                        "(-DPython_EXECUTABLE=..., after: pip install torch==2.13.0), or give the "
                        "folder of LibTorch: -DCMAKE_PREFIX_PATH=<libtorch>.")
  endif()
  set(TOPREACH_TORCH_VERSION ${Torch_VERSION})
  set(TOPREACH_TORCH_CUDA "")
  target_link_libraries(topreach_torch INTERFACE torch)
endif()
message(STATUS "topreach: building against torch ${TOPREACH_TORCH_VERSION}")
