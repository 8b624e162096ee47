// Reading a model file: bytes -> dictionary -> ModelFile, every part checked.
#include <torch/serialize.h>

#include <cmath>
#include <optional>

#include "../programs/program.h"
#include "../require.h"
#include "atomic_file.h"
#include "model_file.h"
#include "model_file_format.h"

namespace topreach {

namespace {

using Dict = c10::impl::GenericDict;
using Value = std::optional<c10::IValue>;

std::string kind_of(const Value& value) {
  return !value ? "none" : value->isNone() ? "None" : "a value of type " + value->tagKind();
}

// The parts of one file, with errors that name the file and the part.
class Reader {
 public:
  Reader(const std::string& path, c10::IValue root) : path_(path), root_(std::move(root)) {}

  [[noreturn]] void fail(const std::string& part, const char* requirement,
                         const std::string& got) const {
    TR_REQUIRE(false, "load_model_file: {} must be {}, got {} in {}. Fit the model again.", part,
               requirement, got, path_);
  }

  Value find(const Dict& dict, const std::string& name) const {
    for (const auto& item : dict) {
      if (item.key().isString() && item.key().toStringRef() == name) return item.value();
    }
    return std::nullopt;
  }

  Dict dict(const Value& value, const std::string& part) const {
    if (!value || !value->isGenericDict()) fail(part, "a dictionary", kind_of(value));
    Dict result = value->toGenericDict();
    for (const auto& item : result) {
      if (!item.key().isString()) fail(part, "a dictionary with names as keys", "another key");
    }
    return result;
  }
  std::string text(const Value& value, const std::string& part) const {
    if (!value || !value->isString()) fail(part, "a string", kind_of(value));
    return value->toStringRef();
  }
  int64_t integer(const Value& value, const std::string& part) const {
    if (!value || !value->isInt()) fail(part, "a whole number", kind_of(value));
    return value->toInt();
  }
  bool boolean(const Value& value, const std::string& part) const {
    if (!value || !value->isBool()) fail(part, "true or false", kind_of(value));
    return value->toBool();
  }
  double number(const Value& value, const std::string& part) const {
    if (!value || !(value->isDouble() || value->isInt())) fail(part, "a number", kind_of(value));
    return value->isInt() ? double(value->toInt()) : value->toDouble();
  }
  torch::Tensor tensor(const Value& value, const std::string& part) const {
    if (!value || !value->isTensor() || !value->toTensor().defined())
      fail(part, "a tensor", kind_of(value));
    return value->toTensor();
  }
  // Undefined if absent.
  torch::Tensor optional_tensor(const Dict& dict, const char* name) const {
    const Value value = find(dict, name);
    return value ? tensor(value, name) : torch::Tensor();
  }
  std::vector<c10::IValue> list(const Value& value, const std::string& part) const {
    if (!value || !value->isList()) fail(part, "a list", kind_of(value));
    return value->toListRef().vec();
  }
  std::vector<std::string> texts(const Value& value, const std::string& part) const {
    std::vector<std::string> result;
    for (const auto& item : list(value, part)) result.push_back(text(item, part + "[...]"));
    return result;
  }
  std::vector<double> numbers(const Value& value, const std::string& part) const {
    std::vector<double> result;
    for (const auto& item : list(value, part)) result.push_back(number(item, part + "[...]"));
    return result;
  }
  ProgramArgument argument(const Value& value, const std::string& part) const {
    if (value && value->isString()) return value->toStringRef();
    if (!value || !value->isList()) return number(value, part);
    const auto items = value->toListRef();
    if (!items.empty() && items[0].isString()) return texts(value, part);
    return numbers(value, part);
  }
  NamedValues named(const Value& value, const std::string& part) const {
    NamedValues result;
    for (const auto& item : dict(value, part))
      result.emplace_back(item.key().toStringRef(), item.value());
    return result;
  }

 private:
  const std::string& path_;
  c10::IValue root_;

 public:
  Dict root() const { return dict(root_, "the file"); }
};

c10::IValue unpickle(const std::string& bytes, const std::string& path) {
  std::string reason;
  try {
    return torch::pickle_load(std::vector<char>(bytes.begin(), bytes.end()));
  } catch (const c10::Error& error) {
    reason = error.what_without_backtrace();
  } catch (const std::exception& error) {
    reason = error.what();
  }
  TR_REQUIRE(false,
             "load_model_file: path must be a whole model file, got {}, which cannot be read ({})",
             path, reason.substr(0, reason.find('\n')));
}

Standardizer read_standardizer(const Reader& read, const Dict& dict) {
  Standardizer result;
  result.feature_names = read.texts(read.find(dict, "feature_names"), "standardizer.feature_names");
  for (const auto& item : read.list(read.find(dict, "kept"), "standardizer.kept"))
    result.kept.push_back(read.integer(item, "standardizer.kept[...]"));
  result.mean = read.tensor(read.find(dict, "mean"), "standardizer.mean").to(torch::kDouble);
  result.scale = read.tensor(read.find(dict, "scale"), "standardizer.scale").to(torch::kDouble);
  return result;
}

SiteHistory read_site_history(const Reader& read, const Dict& dict) {
  const auto part = [&](const char* name) { return read.find(dict, name); };
  const auto numbers = [&](const char* name) {
    return read.numbers(part(name), std::string("site_history.") + name);
  };
  SiteHistory result;
  result.half_lives = numbers("half_lives");
  result.concentration = numbers("concentration");
  result.shape = read.number(part("shape"), "site_history.shape");
  result.level = read.number(part("level"), "site_history.level");
  result.smoothing = read.number(part("smoothing"), "site_history.smoothing");
  result.seasonal_smoothing =
      read.number(part("seasonal_smoothing"), "site_history.seasonal_smoothing");
  result.season = read.integer(part("season"), "site_history.season");
  result.mean_exposure = read.number(part("mean_exposure"), "site_history.mean_exposure");
  for (const auto& item : read.list(part("graphs"), "site_history.graphs")) {
    const Dict graph = read.dict(item, "site_history.graphs[...]");
    const auto tensor = [&](const char* name, torch::ScalarType type) {
      return read.tensor(read.find(graph, name), std::string("site_history.graphs[...].") + name)
          .to(type);
    };
    result.graphs.push_back({tensor("start", torch::kLong), tensor("sites", torch::kLong),
                             tensor("weights", torch::kDouble)});
  }
  return result;
}

}  // namespace

ModelFile parse_model_file(const std::string& bytes, const std::string& path) {
  const auto [archive, digest] = checked_archive(bytes, path);
  const Reader read(path, unpickle(archive, path));
  const Dict root = read.root();
  const auto at = [&](const char* name) { return read.find(root, name); };
  const Value format = at("format");
  TR_REQUIRE(
      format && format->isString() && format->toStringRef() == kModelFileFormat,
      "load_model_file: path must be a file of format '{}', got {}, which is of another kind",
      kModelFileFormat, path);
  const int64_t version = read.integer(at("format_version"), "format_version");
  TR_REQUIRE(version == kModelFileVersion,
             "load_model_file: format_version must be {}, got {} in {}; {}", kModelFileVersion,
             version, path,
             version > kModelFileVersion ? "update topreach to read this file"
                                         : "fit the model again with this version of topreach");
  ModelFile file;
  file.digest = digest;
  const Dict written = read.dict(at("written_by"), "written_by");
  file.topreach_version = read.text(read.find(written, "topreach"), "written_by.topreach");
  file.torch_version = read.text(read.find(written, "torch"), "written_by.torch");
  file.model = read.text(at("model"), "model");
  file.config = read.named(at("config"), "config");
  for (const auto& [name, value] : read.named(at("state"), "state"))
    file.state.emplace_back(name, read.tensor(value, "state." + name));
  file.fit = read.named(at("fit"), "fit");
  file.standardizer = read_standardizer(read, read.dict(at("standardizer"), "standardizer"));
  const Dict time = read.dict(at("time"), "time");
  file.time_origin = read.number(read.find(time, "origin"), "time.origin");
  file.time_scale = read.number(read.find(time, "scale"), "time.scale");
  const Dict calendar = read.dict(at("calendar"), "calendar");
  file.calendar = Calendar(read.text(read.find(calendar, "unit"), "calendar.unit"),
                           read.number(read.find(calendar, "step"), "calendar.step"),
                           read.number(read.find(calendar, "origin"), "calendar.origin"),
                           read.text(read.find(calendar, "format"), "calendar.format"));
  file.fitted_times = read.numbers(at("fitted_times"), "fitted_times");
  const Dict past = read.dict(at("past"), "past");
  file.past.times = read.numbers(read.find(past, "times"), "past.times");
  file.past.counts = read.optional_tensor(past, "counts");
  file.past.upper = read.optional_tensor(past, "upper");
  file.past.exposure = read.optional_tensor(past, "exposure");
  file.last_features = read.optional_tensor(root, "last_features");
  file.constant_features = read.optional_tensor(root, "constant_features");
  file.site_ids = read.texts(at("site_ids"), "site_ids");
  file.opened = read.numbers(at("opened"), "opened");
  file.closed = read.numbers(at("closed"), "closed");
  const Dict program = read.dict(at("program"), "program");
  file.program = read.text(read.find(program, "name"), "program.name");
  file.program_config.clear();
  for (const auto& [name, value] : read.named(read.find(program, "config"), "program.config"))
    file.program_config.emplace_back(name, read.argument(value, "program.config." + name));
  file.ranking = read.text(at("ranking"), "ranking");
  file.model_samples = read.integer(at("model_samples"), "model_samples");
  file.key = read.tensor(at("key"), "key");
  file.uses_exposure = read.boolean(at("uses_exposure"), "uses_exposure");
  if (const Value history = at("site_history"))
    file.site_history = read_site_history(read, read.dict(history, "site_history"));
  for (const auto& [name, value] : read.named(at("table"), "table"))
    file.table.emplace_back(name, read.text(value, "table." + name));
  check_model_file("load_model_file", file);
  return file;
}

ModelFile load_model_file(const std::string& path) {
  return parse_model_file(read_whole_file("load_model_file", path), path);
}

}  // namespace topreach
