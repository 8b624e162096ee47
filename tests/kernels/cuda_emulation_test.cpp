// The host emulation of CUDA launches: what kernels may rely on, and the errors that it must detect.
#include "cuda_emulation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

namespace {

using cuda_emulation::LaunchFailure;
using cuda_emulation::Order;

std::string failure(int block, const std::function<void()>& thread, int64_t shared = 0) {
  try {
    cuda_emulation::launch(1, block, shared, nullptr, thread);
  } catch (const LaunchFailure& error) {
    return error.what();
  }
  return "";
}

class CudaEmulation : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    const int n = GetParam();
    cuda_emulation::schedule(n == 0   ? Order::kForward
                             : n == 1 ? Order::kReverse
                                      : Order::kRandom,
                             uint64_t(n));
  }
  void TearDown() override { cuda_emulation::schedule(Order::kForward); }
};

INSTANTIATE_TEST_SUITE_P(Orders, CudaEmulation, testing::Range(0, 6));

TEST_P(CudaEmulation, RunsEachThreadOfEachBlockOnce) {
  std::vector<int> runs(5 * 70, 0);
  cuda_emulation::launch(5, 70, 0, nullptr, [&] {
    EXPECT_EQ(blockDim.x, 70u);
    EXPECT_EQ(gridDim.x, 5u);
    ++runs[blockIdx.x * blockDim.x + threadIdx.x];
  });
  EXPECT_EQ(runs, std::vector<int>(5 * 70, 1));
}

TEST_P(CudaEmulation, BarrierSeparatesWritesFromReads) {
  std::vector<int> sums(3, 0);
  cuda_emulation::launch(3, 256, 256 * sizeof(int), nullptr, [&] {
    int* values = static_cast<int*>(cuda_emulation::shared_memory(256 * sizeof(int)));
    values[threadIdx.x] = int(threadIdx.x);
    for (unsigned width = 128; width > 0; width /= 2) {
      __syncthreads();
      if (threadIdx.x < width) values[threadIdx.x] += values[threadIdx.x + width];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = values[0];
  });
  EXPECT_EQ(sums, std::vector<int>(3, 255 * 128));
}

TEST_P(CudaEmulation, VoteReachesAllThreads) {
  int yes = 0, no = 0;
  cuda_emulation::launch(1, 96, 0, nullptr, [&] {
    yes += __syncthreads_or(threadIdx.x == 77);
    no += __syncthreads_or(0);
  });
  EXPECT_EQ(yes, 96);
  EXPECT_EQ(no, 0);
}

TEST_P(CudaEmulation, ShufflesFollowTheWarpsSegments) {
  cuda_emulation::launch(1, 64, 0, nullptr, [&] {
    const int t = int(threadIdx.x), lane = t % 32;
    EXPECT_EQ(__shfl_down_sync(~0u, t, 3u), lane + 3 < 32 ? t + 3 : t);
    EXPECT_EQ(__shfl_up_sync(~0u, double(t), 3u), double(lane >= 3 ? t - 3 : t));
    EXPECT_EQ(__shfl_down_sync(~0u, t, 8u, 16), lane % 16 + 8 < 16 ? t + 8 : t);
    EXPECT_EQ(__ballot_sync(~0u, t >= 40), t < 32 ? 0u : 0xFFFFFF00u);
  });
}

TEST_P(CudaEmulation, LanesOfTwoMasksGoTheirOwnWays) {
  cuda_emulation::launch(1, 32, 0, nullptr, [&] {
    const bool low = threadIdx.x < 16;
    if (low) {
      EXPECT_EQ(__ballot_sync(0x0000FFFFu, 1), 0x0000FFFFu);
    } else {
      EXPECT_EQ(__ballot_sync(0xFFFF0000u, 1), 0xFFFF0000u);
    }
    EXPECT_EQ(__ballot_sync(~0u, low), 0x0000FFFFu);
  });
}

TEST_P(CudaEmulation, AtomicsLoseNothing) {
  unsigned count = 0, bits = 0;
  cuda_emulation::launch(4, 200, 0, nullptr, [&] {
    atomicAdd(&count, 1u);
    atomicXor(&bits, 1u << threadIdx.x % 32);
  });
  EXPECT_EQ(count, 800u);
  EXPECT_EQ(bits, 0u);
}

TEST(CudaEmulationFaults, SharedMemoryStartsPoisoned) {
  cuda_emulation::launch(2, 8, 64, nullptr, [&] {
    const auto* values = static_cast<float*>(cuda_emulation::shared_memory(64));
    EXPECT_TRUE(std::isnan(values[threadIdx.x]));
    __syncthreads();
    static_cast<float*>(cuda_emulation::shared_memory(64))[threadIdx.x] = 1;
  });
}

TEST(CudaEmulationFaults, NamesTheThreadThatLeavesBeforeABarrier) {
  const std::string what = failure(40, [] {
    if (threadIdx.x == 33) return;
    __syncthreads();
  });
  EXPECT_NE(what.find("thread 33 has left while others wait at the barrier at cuda_emulation_test"),
            std::string::npos)
      << what;
}

TEST(CudaEmulationFaults, NamesTheThreadAtAnotherBarrier) {
  const std::string what = failure(40, [] {
    if (threadIdx.x < 33) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  });
  EXPECT_NE(what.find("thread 33 waits at the barrier at"), std::string::npos) << what;
}

TEST(CudaEmulationFaults, NamesTheLaneWhoseWarpNeverComes) {
  EXPECT_NE(failure(32,
                    [] {
                      if (threadIdx.x != 5) __ballot_sync(~0u, 1);
                    })
                .find("waits for lanes of its warp"),
            std::string::npos);
  EXPECT_NE(failure(16, [] { __ballot_sync(~0u, 1); }).find("waits for lanes of its warp"),
            std::string::npos);
  EXPECT_NE(failure(32, [] { __ballot_sync(1u, 1); }).find("not in the mask"), std::string::npos);
}

TEST(CudaEmulationFaults, CatchesWritesOutsideSharedMemory) {
  EXPECT_NE(failure(
                32,
                [] {
                  volatile auto* bytes =
                      static_cast<unsigned char*>(cuda_emulation::shared_memory(32));
                  bytes[threadIdx.x + 8] = 0;
                },
                32)
                .find("wrote outside its shared memory, byte 32"),
            std::string::npos);
  EXPECT_NE(failure(
                1, [] { cuda_emulation::shared_memory(8); }, 4)
                .find("launched with 4"),
            std::string::npos);
}

TEST(CudaEmulationFaults, RefusesWhatTheHardwareRefuses) {
  const auto nothing = [] {};
  const auto refused = cudaErrorInvalidConfiguration;
  EXPECT_EQ(cuda_emulation::launch(0, 32, 0, nullptr, nothing), refused);
  EXPECT_EQ(cuda_emulation::launch(1, 1025, 0, nullptr, nothing), refused);
  EXPECT_EQ(cuda_emulation::launch(1, 32, (48 << 10) + 1, nullptr, nothing), refused);
  EXPECT_EQ(cuda_emulation::launch(int64_t{1} << 31, 32, 0, nullptr, nothing), refused);
  EXPECT_EQ(cuda_emulation::launch(1, 32, 0, nullptr, nothing), cudaSuccess);
}

// A race: the last thread to write wins, so the result depends on the order.
TEST(CudaEmulationFaults, OrdersShowARace) {
  const auto last_writer = [] {
    int last = -1;
    cuda_emulation::launch(1, 64, 0, nullptr, [&] { last = int(threadIdx.x); });
    return last;
  };
  cuda_emulation::schedule(Order::kForward);
  EXPECT_EQ(last_writer(), 63);
  cuda_emulation::schedule(Order::kReverse);
  EXPECT_EQ(last_writer(), 0);
  cuda_emulation::schedule(Order::kRandom, 1);
  std::vector<int> seen;
  for (int i = 0; i < 8; ++i) seen.push_back(last_writer());
  EXPECT_NE(std::accumulate(seen.begin(), seen.end(), 0), 8 * seen[0]);
  cuda_emulation::schedule(Order::kForward);
}

}  // namespace
