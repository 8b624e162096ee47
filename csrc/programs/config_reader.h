// Reads a program's arguments by name, with errors that name program and argument.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "program.h"

namespace topreach {

/// `make_program` passes one to a program's `from_config`, which reads each argument that the program
/// has; `finish` refuses all others. All methods raise c10::ValueError.
class ConfigReader {
 public:
  ConfigReader(std::string program, const ProgramConfig& config)
      : program_(std::move(program)),
        config_(config) {}

  bool has(const std::string& argument) const;
  double number(const std::string& argument);
  double number(const std::string& argument, double otherwise);  // otherwise: if absent
  int64_t whole(const std::string& argument, int64_t least);
  std::string text(const std::string& argument);
  // Empty if absent.
  std::vector<double> numbers(const std::string& argument);
  std::vector<int64_t> wholes(const std::string& argument);
  std::vector<std::string> texts(const std::string& argument);
  void finish() const;

 private:
  const ProgramArgument* find(const std::string& argument);
  [[noreturn]] void fail(const std::string& argument, const char* requirement) const;
  int64_t as_whole(const std::string& argument, double value, int64_t least) const;

  std::string program_;
  const ProgramConfig& config_;
  std::set<std::string> read_;
};

}  // namespace topreach
