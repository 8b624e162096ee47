#include "cuda_emulation.h"

#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulation {

Index thread_index, block_index;
Extent block_extent, grid_extent;

namespace {

constexpr std::size_t kStackBytes = 64 << 10;
constexpr std::size_t kGuardBytes = 64;
constexpr unsigned char kPoison = 0xFF, kGuard = 0xA5;
constexpr int64_t kMostThreads = 1024, kMostSharedBytes = 48 << 10;

enum class State { kReady, kBlockBarrier, kWarp, kDone };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack{new unsigned char[kStackBytes]};
  void* sanitizer_stack = nullptr;
  State state = State::kDone;
  std::source_location where;
  unsigned mask = 0;
  uint64_t brought = 0;
  uint64_t slots[32];
  bool vote = false;
};

bool same_place(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::string_view(a.file_name()) == b.file_name();
}

std::string place(const std::source_location& where) {
  const std::string file = where.file_name();
  std::ostringstream text;
  text << file.substr(file.rfind('/') + 1) << ":" << where.line();
  return text.str();
}

// One launch at a time; fibers and their stacks are kept for the next.
class Machine {
 public:
  Order order = Order::kForward;
  std::mt19937_64 random;

  void run(int64_t grid, int64_t block, std::size_t shared_bytes,
           const std::function<void()>& body) {
    body_ = &body;
    threads_ = int(block);
    while (fibers_.size() < std::size_t(block)) fibers_.push_back(std::make_unique<Fiber>());
    shared_bytes_ = shared_bytes;
    shared_.reset(new unsigned char[shared_bytes + kGuardBytes]);
    block_extent = {unsigned(block), 1, 1};
    grid_extent = {unsigned(grid), 1, 1};
    std::vector<int64_t> blocks(std::size_t(grid), 0);
    std::iota(blocks.begin(), blocks.end(), 0);
    arrange(blocks);
    for (const int64_t b : blocks) {
      block_index = {unsigned(b), 0, 0};
      run_block();
    }
  }

  void* shared(std::size_t bytes) const {
    if (bytes > shared_bytes_)
      fail("the kernel uses " + std::to_string(bytes) + " bytes of shared memory, launched with " +
           std::to_string(shared_bytes_));
    return shared_.get();
  }

  Fiber& current() { return *fibers_[std::size_t(current_)]; }

  // Gives the processor back; returns when the scheduler has made this fiber ready again.
  void wait(State state) {
    Fiber& fiber = current();
    fiber.state = state;
    leave(fiber, false);
  }

 private:
  template <typename Container>
  void arrange(Container& items) {
    if (order == Order::kReverse) std::reverse(items.begin(), items.end());
    if (order == Order::kRandom) std::shuffle(items.begin(), items.end(), random);
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw LaunchFailure("block " + std::to_string(block_index.x) + ": " + what);
  }

  void run_block() {
    std::memset(shared_.get(), kPoison, shared_bytes_);
    std::memset(shared_.get() + shared_bytes_, kGuard, kGuardBytes);
    error_ = nullptr;
    for (int t = 0; t < threads_; ++t) start(*fibers_[std::size_t(t)]);
    std::vector<int> turns(static_cast<std::size_t>(threads_));
    std::iota(turns.begin(), turns.end(), 0);
    if (order == Order::kReverse) std::reverse(turns.begin(), turns.end());
    for (;;) {
      if (order == Order::kRandom) arrange(turns);
      bool ran = false;
      for (const int t : turns) {
        if (fibers_[std::size_t(t)]->state != State::kReady) continue;
        ran = true;
        enter(t);
        if (error_) std::rethrow_exception(error_);
      }
      if (ran) continue;
      if (release_warps()) continue;
      if (!release_block()) break;
    }
    for (std::size_t i = 0; i < kGuardBytes; ++i)
      if (shared_[shared_bytes_ + i] != kGuard)
        fail("wrote outside its shared memory, byte " + std::to_string(shared_bytes_ + i));
  }

  // Lets lanes go on whose whole mask waits at the same warp operation.
  bool release_warps() {
    bool released = false;
    for (int first = 0; first < threads_; first += 32) {
      for (int t = first; t < std::min(first + 32, threads_); ++t) {
        Fiber& fiber = *fibers_[std::size_t(t)];
        if (fiber.state != State::kWarp) continue;
        if (!complete(fiber, first)) continue;
        const unsigned mask = fiber.mask;
        for (int lane = 0; lane < 32; ++lane) {
          if ((mask >> lane & 1u) == 0) continue;
          Fiber& to = *fibers_[std::size_t(first + lane)];
          for (int from = 0; from < 32; ++from)
            to.slots[from] =
                (mask >> from & 1u) != 0 ? fibers_[std::size_t(first + from)]->brought : ~0ull;
          to.state = State::kReady;
        }
        released = true;
      }
    }
    return released;
  }

  bool complete(const Fiber& fiber, int first) const {
    for (int lane = 0; lane < 32; ++lane) {
      if ((fiber.mask >> lane & 1u) == 0) continue;
      if (first + lane >= threads_) return false;
      const Fiber& other = *fibers_[std::size_t(first + lane)];
      if (other.state != State::kWarp || other.mask != fiber.mask ||
          !same_place(other.where, fiber.where))
        return false;
    }
    return true;
  }

  // Lets the block go on if all threads wait at one barrier; false when all have finished.
  bool release_block() {
    const Fiber* waiting = nullptr;
    bool finished = true, vote = false;
    for (int t = 0; t < threads_; ++t) {
      const Fiber& fiber = *fibers_[std::size_t(t)];
      finished &= fiber.state == State::kDone;
      if (fiber.state == State::kBlockBarrier && waiting == nullptr) waiting = &fiber;
      vote |= fiber.vote;
    }
    if (finished) return false;
    for (int t = 0; t < threads_; ++t) {
      const Fiber& fiber = *fibers_[std::size_t(t)];
      if (fiber.state == State::kWarp)
        fail("thread " + std::to_string(t) + " waits for lanes of its warp at " +
             place(fiber.where) + " that never come");
      if (fiber.state == State::kDone)
        fail("thread " + std::to_string(t) + " has left while others wait at the barrier at " +
             place(waiting->where));
      if (!same_place(fiber.where, waiting->where))
        fail("thread " + std::to_string(t) + " waits at the barrier at " + place(fiber.where) +
             ", others at " + place(waiting->where));
    }
    for (int t = 0; t < threads_; ++t) {
      Fiber& fiber = *fibers_[std::size_t(t)];
      fiber.state = State::kReady;
      fiber.vote = vote;
    }
    return true;
  }

  void start(Fiber& fiber) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &Machine::fiber_main, 0);
    fiber.state = State::kReady;
    fiber.vote = false;
  }

  static void fiber_main();

  void enter(int t) {
    current_ = t;
    thread_index = {unsigned(t), 0, 0};
    Fiber& fiber = *fibers_[std::size_t(t)];
#if defined(__SANITIZE_ADDRESS__)
    void* own = nullptr;
    __sanitizer_start_switch_fiber(&own, fiber.stack.get(), kStackBytes);
#endif
    swapcontext(&scheduler_, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(own, nullptr, nullptr);
#endif
  }

  void leave(Fiber& fiber, [[maybe_unused]] bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.sanitizer_stack, scheduler_stack_,
                                   scheduler_stack_bytes_);
#endif
    swapcontext(&fiber.context, &scheduler_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber.sanitizer_stack, nullptr, nullptr);
#endif
  }

  const std::function<void()>* body_ = nullptr;
  int threads_ = 0, current_ = 0;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::unique_ptr<unsigned char[]> shared_;
  std::size_t shared_bytes_ = 0;
  std::exception_ptr error_;
  ucontext_t scheduler_;
  [[maybe_unused]] const void* scheduler_stack_ = nullptr;
  [[maybe_unused]] std::size_t scheduler_stack_bytes_ = 0;
};

Machine& machine() {
  static Machine the_machine;
  return the_machine;
}

void Machine::fiber_main() {
  Machine& m = machine();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_stack_, &m.scheduler_stack_bytes_);
#endif
  try {
    (*m.body_)();
  } catch (...) {
    m.error_ = std::current_exception();
  }
  m.current().state = State::kDone;
  m.leave(m.current(), true);
}

}  // namespace

void schedule(Order order, uint64_t seed) {
  machine().order = order;
  machine().random.seed(seed);
}

cudaError_t launch(int64_t grid, int64_t block, int64_t shared_bytes, cudaStream_t,
                   const std::function<void()>& thread) {
  if (grid < 1 || grid > INT32_MAX || block < 1 || block > kMostThreads || shared_bytes < 0 ||
      shared_bytes > kMostSharedBytes)
    return cudaErrorInvalidConfiguration;
  machine().run(grid, block, std::size_t(shared_bytes), thread);
  return cudaSuccess;
}

void* shared_memory(std::size_t bytes) { return machine().shared(bytes); }

bool sync_block(bool vote, std::source_location where) {
  Fiber& fiber = machine().current();
  fiber.vote = vote;
  fiber.where = where;
  machine().wait(State::kBlockBarrier);
  const bool result = fiber.vote;
  fiber.vote = false;
  return result;
}

const uint64_t* sync_warp(unsigned mask, uint64_t bits, std::source_location where) {
  Fiber& fiber = machine().current();
  if ((mask >> (thread_index.x % 32) & 1u) == 0)
    throw LaunchFailure("thread " + std::to_string(thread_index.x) +
                        " is not in the mask of its warp operation at " + place(where));
  fiber.mask = mask;
  fiber.brought = bits;
  fiber.where = where;
  machine().wait(State::kWarp);
  return fiber.slots;
}

void before_atomic() {
  Machine& m = machine();
  if (m.order == Order::kRandom && m.random() % 8 == 0) m.wait(State::kReady);
}

}  // namespace cuda_emulation
