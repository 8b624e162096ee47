#include "config_reader.h"

#include <cmath>
#include <limits>

#include "../require.h"

namespace topreach {

namespace {

constexpr double kLargestWhole = 9007199254740992.0;  // 2^53

std::string got(const ProgramArgument* value) {
  if (!value) return "none";
  if (const auto* number = std::get_if<double>(value)) return fmt::format("{}", *number);
  if (const auto* text = std::get_if<std::string>(value)) return fmt::format("'{}'", *text);
  return std::holds_alternative<std::vector<double>>(*value) ? "a list of numbers"
                                                             : "a list of strings";
}

}  // namespace

bool ConfigReader::has(const std::string& argument) const {
  for (const auto& [name, value] : config_)
    if (name == argument) return true;
  return false;
}

const ProgramArgument* ConfigReader::find(const std::string& argument) {
  read_.insert(argument);
  for (const auto& [name, value] : config_)
    if (name == argument) return &value;
  return nullptr;
}

void ConfigReader::fail(const std::string& argument, const char* requirement) const {
  const ProgramArgument* found = nullptr;
  for (const auto& [name, value] : config_)
    if (name == argument) found = &value;
  TR_REQUIRE(false, "make_program: {} of {} must be {}, got {}", argument, program_, requirement,
             got(found));
}

double ConfigReader::number(const std::string& argument) {
  const auto* value = find(argument);
  if (!value || !std::holds_alternative<double>(*value)) fail(argument, "a number");
  return std::get<double>(*value);
}

double ConfigReader::number(const std::string& argument, double otherwise) {
  return has(argument) ? number(argument) : otherwise;
}

int64_t ConfigReader::as_whole(const std::string& argument, double value, int64_t least) const {
  TR_REQUIRE(
      value >= double(least) && std::abs(value) <= kLargestWhole && value == std::floor(value),
      "make_program: {} of {} must be a whole number >= {}, got {}", argument, program_, least,
      value);
  return int64_t(value);
}

int64_t ConfigReader::whole(const std::string& argument, int64_t least) {
  return as_whole(argument, number(argument), least);
}

std::string ConfigReader::text(const std::string& argument) {
  const auto* value = find(argument);
  if (!value || !std::holds_alternative<std::string>(*value)) fail(argument, "a string");
  return std::get<std::string>(*value);
}

std::vector<double> ConfigReader::numbers(const std::string& argument) {
  const auto* value = find(argument);
  if (!value) return {};
  if (const auto* list = std::get_if<std::vector<double>>(value)) return *list;
  const auto* texts = std::get_if<std::vector<std::string>>(value);
  if (!texts || !texts->empty()) fail(argument, "a list of numbers");
  return {};
}

std::vector<int64_t> ConfigReader::wholes(const std::string& argument) {
  std::vector<int64_t> result;
  for (const double value : numbers(argument))
    result.push_back(as_whole(argument, value, -int64_t(kLargestWhole)));
  return result;
}

std::vector<std::string> ConfigReader::texts(const std::string& argument) {
  const auto* value = find(argument);
  if (!value) return {};
  if (const auto* list = std::get_if<std::vector<std::string>>(value)) return *list;
  const auto* numbers = std::get_if<std::vector<double>>(value);
  if (!numbers || !numbers->empty()) fail(argument, "a list of strings");
  return {};
}

void ConfigReader::finish() const {
  for (const auto& [name, value] : config_)
    TR_REQUIRE(read_.contains(name), "make_program: {} must not have the argument {}, got {}",
               program_, name, got(&value));
}

}  // namespace topreach
