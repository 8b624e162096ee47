// Working memory of one CPU worker.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace topreach {

class Scratch {
 public:
  explicit Scratch(int64_t bytes)
      : memory_(std::aligned_alloc(64, size_t((bytes + 63) / 64 * 64))) {
    if (!memory_) throw std::bad_alloc();
  }
  void* get() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
};

}  // namespace topreach
