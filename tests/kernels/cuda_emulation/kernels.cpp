// The CUDA sources, compiled for the host.
#include "../../../kernels/cuda/perturbed_topk.cu"
