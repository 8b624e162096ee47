#include "model_file.h"

#include <caffe2/serialize/inline_container.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <torch/csrc/jit/serialization/pickler.h>
#include <torch/serialize.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>

#include "../require.h"

namespace topreach {

namespace {

using Dict = c10::impl::GenericDict;
using List = c10::impl::GenericList;

constexpr const char* kFormat = "topreach-model";

// ------------------------------------------------------------------------------- reading

// The parts of one file, with errors that name the file and the part.
class Reader {
 public:
  Reader(const std::string& path, c10::IValue root) : path_(path), root_(std::move(root)) {}

  [[noreturn]] void fail(const std::string& part, const char* requirement) const {
    TR_REQUIRE(false, "load_model_file: {} must be {}, got something else, or nothing, in {}", part,
               requirement, path_);
  }

  std::optional<c10::IValue> find(const Dict& dict, const std::string& name) const {
    for (const auto& item : dict) {
      if (item.key().isString() && item.key().toStringRef() == name) return item.value();
    }
    return std::nullopt;
  }

  Dict dict(const std::optional<c10::IValue>& value, const std::string& part) const {
    if (!value || !value->isGenericDict()) fail(part, "a dictionary");
    Dict result = value->toGenericDict();
    for (const auto& item : result) {
      if (!item.key().isString()) fail(part, "a dictionary with names as keys");
    }
    return result;
  }
  std::string text(const std::optional<c10::IValue>& value, const std::string& part) const {
    if (!value || !value->isString()) fail(part, "a string");
    return value->toStringRef();
  }
  int64_t integer(const std::optional<c10::IValue>& value, const std::string& part) const {
    if (!value || !value->isInt()) fail(part, "a whole number");
    return value->toInt();
  }
  double number(const std::optional<c10::IValue>& value, const std::string& part) const {
    if (!value || !(value->isDouble() || value->isInt())) fail(part, "a number");
    return value->isInt() ? double(value->toInt()) : value->toDouble();
  }
  torch::Tensor tensor(const std::optional<c10::IValue>& value, const std::string& part) const {
    if (!value || !value->isTensor() || !value->toTensor().defined()) fail(part, "a tensor");
    return value->toTensor();
  }
  std::vector<c10::IValue> list(const std::optional<c10::IValue>& value,
                                const std::string& part) const {
    if (!value || !value->isList()) fail(part, "a list");
    return value->toListRef().vec();
  }
  std::vector<std::string> texts(const std::optional<c10::IValue>& value,
                                 const std::string& part) const {
    std::vector<std::string> result;
    for (const auto& item : list(value, part)) result.push_back(text(item, part + "[...]"));
    return result;
  }

  Dict root() const { return dict(root_, "the file"); }

 private:
  const std::string& path_;
  c10::IValue root_;
};

std::vector<char> read_bytes(const std::string& path) {
  struct stat status{};
  TR_REQUIRE(stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode),
             "load_model_file: path must be a file, got {}, where there is none", path);
  std::ifstream stream(path, std::ios::binary);
  std::vector<char> bytes(size_t(status.st_size));
  TR_REQUIRE(stream.read(bytes.data(), std::streamsize(bytes.size())),
             "load_model_file: path must be readable, got {}, which could not be "
             "read: {}",
             path, std::strerror(errno));
  return bytes;
}

c10::IValue unpickle(const std::string& path) {
  const std::vector<char> bytes = read_bytes(path);
  std::string reason;
  try {
    return torch::pickle_load(bytes);
  } catch (const c10::Error& error) {
    reason = error.what_without_backtrace();
  } catch (const std::exception& error) {
    reason = error.what();
  }
  TR_REQUIRE(false,
             "load_model_file: path must be a whole model file, got {}, which is "
             "damaged, cut short or of another kind ({})",
             path, reason.substr(0, reason.find('\n')));
}

Standardizer read_standardizer(const Reader& read, const Dict& dict) {
  Standardizer result;
  result.feature_names = read.texts(read.find(dict, "feature_names"), "standardizer.feature_names");
  for (const auto& item : read.list(read.find(dict, "kept"), "standardizer.kept")) {
    const int64_t column = read.integer(item, "standardizer.kept[...]");
    if (column < 0 || column >= int64_t(result.feature_names.size()))
      read.fail("standardizer.kept", "numbers of columns in feature_names");
    result.kept.push_back(column);
  }
  const int64_t size = int64_t(result.kept.size());
  result.mean = read.tensor(read.find(dict, "mean"), "standardizer.mean").to(torch::kDouble);
  result.scale = read.tensor(read.find(dict, "scale"), "standardizer.scale").to(torch::kDouble);
  if (result.mean.sizes() != at::IntArrayRef{size} || result.scale.sizes() != at::IntArrayRef{size})
    read.fail("standardizer.mean and scale", "tensors with one entry per kept column");
  if (!result.scale.gt(0).all().item<bool>()) read.fail("standardizer.scale", "positive");
  return result;
}

SiteHistory read_site_history(const Reader& read, const Dict& dict, int64_t sites) {
  const auto part = [&](const char* name) { return read.find(dict, name); };
  const auto numbers = [&](const char* name) {
    std::vector<double> result;
    for (const auto& item : read.list(part(name), std::string("site_history.") + name))
      result.push_back(read.number(item, std::string("site_history.") + name + "[...]"));
    return result;
  };
  SiteHistory result;
  result.half_lives = numbers("half_lives");
  result.concentration = numbers("concentration");
  result.shape = read.number(part("shape"), "site_history.shape");
  result.level = read.number(part("level"), "site_history.level");
  result.smoothing = read.number(part("smoothing"), "site_history.smoothing");
  result.seasonal_smoothing =
      read.number(part("seasonal_smoothing"), "site_history.seasonal_smoothing");
  result.end = read.number(part("end"), "site_history.end");
  result.season = read.integer(part("season"), "site_history.season");
  result.counts = read.tensor(part("counts"), "site_history.counts").to(torch::kFloat);
  if (result.counts.dim() != 2 || result.counts.size(1) != sites)
    read.fail("site_history.counts", "of shape [N, S] with the S sites of site_ids");
  if (result.half_lives.empty() || result.season < 0)
    read.fail("site_history", "of one half-life or more, and of a season that is not negative");
  for (const auto& item : read.list(part("graphs"), "site_history.graphs")) {
    const Dict graph = read.dict(item, "site_history.graphs[...]");
    const auto tensor = [&](const char* name, torch::ScalarType type) {
      return read.tensor(read.find(graph, name), std::string("site_history.graphs[...].") + name)
          .to(type);
    };
    Neighbours near{tensor("start", torch::kLong), tensor("sites", torch::kLong),
                    tensor("weights", torch::kDouble)};
    const int64_t edges = near.sites.numel();
    const bool fits =
        near.start.sizes() == at::IntArrayRef{sites + 1} && near.sites.dim() == 1 &&
        near.weights.sizes() == near.sites.sizes() && near.start[0].item<int64_t>() == 0 &&
        near.start[sites].item<int64_t>() == edges && near.start.diff().ge(0).all().item<bool>() &&
        near.sites.ge(0).logical_and(near.sites.lt(sites)).all().item<bool>();
    if (!fits) read.fail("site_history.graphs", "lists of sites for each site");
    result.graphs.push_back(std::move(near));
  }
  if (result.graphs.size() != result.concentration.size())
    read.fail("site_history.concentration", "a list with one entry per graph");
  return result;
}

// ------------------------------------------------------------------------------- writing

template <typename T>
List list_of(const std::vector<T>& values) {
  List list(c10::AnyType::get());
  for (const auto& value : values) list.push_back(value);
  return list;
}

Dict new_dict() { return Dict(c10::StringType::get(), c10::AnyType::get()); }

// Lists as lists of any kind: the pickler writes those plainly, while lists of integers would call
// a function that Python's weights_only=True does not let through.
c10::IValue plain(const c10::IValue& value) {
  if (!value.isList()) return value;
  List list(c10::AnyType::get());
  for (const auto& item : value.toListRef()) list.push_back(item);
  return list;
}

Dict to_dict(const SiteHistory& history, const std::vector<std::string>& site_ids) {
  Dict dict = new_dict();
  List graphs(c10::AnyType::get());
  for (const Neighbours& near : history.graphs) {
    Dict graph = new_dict();
    graph.insert("start", near.start);
    graph.insert("sites", near.sites);
    graph.insert("weights", near.weights);
    graphs.push_back(graph);
  }
  dict.insert("half_lives", list_of(history.half_lives));
  dict.insert("concentration", list_of(history.concentration));
  dict.insert("shape", history.shape);
  dict.insert("level", history.level);
  dict.insert("season", history.season);
  dict.insert("smoothing", history.smoothing);
  dict.insert("seasonal_smoothing", history.seasonal_smoothing);
  dict.insert("site_ids", list_of(site_ids));
  dict.insert("counts", history.counts.contiguous());
  dict.insert("end", history.end);
  dict.insert("graphs", graphs);
  return dict;
}

c10::IValue to_value(const ModelFile& file) {
  Dict config = new_dict(), state = new_dict(), standardizer = new_dict(), time = new_dict();
  for (const auto& [name, value] : file.config) config.insert(name, plain(value));
  for (const auto& [name, tensor] : file.state)
    state.insert(name, tensor.detach().cpu().contiguous());
  standardizer.insert("feature_names", list_of(file.standardizer.feature_names));
  standardizer.insert("kept", list_of(file.standardizer.kept));
  standardizer.insert("mean", file.standardizer.mean.cpu());
  standardizer.insert("scale", file.standardizer.scale.cpu());
  time.insert("origin", file.time_origin);
  time.insert("scale", file.time_scale);
  Dict root = new_dict();
  root.insert("format", kFormat);
  root.insert("format_version", kModelFileVersion);
  root.insert("model", file.model);
  root.insert("config", config);
  root.insert("state", state);
  root.insert("standardizer", standardizer);
  root.insert("time", time);
  root.insert("site_ids", list_of(file.site_ids));
  root.insert("k", file.k);
  root.insert("ranking", file.ranking);
  root.insert("model_samples", file.model_samples);
  root.insert("key", file.key.cpu());
  root.insert("window", file.window);
  root.insert("uses_exposure", file.uses_exposure);
  if (file.site_history) root.insert("site_history", to_dict(*file.site_history, file.site_ids));
  if (!file.columns.empty()) {
    Dict columns = new_dict();
    for (const auto& [role, column] : file.columns) columns.insert(role, column);
    root.insert("columns", columns);
  }
  return root;
}

// torch::pickle_save marks every list and dictionary with its C++ type, by a function that Python's
// weights_only=True refuses. The pickler can leave the marks out; the rest is the same archive.
std::string archive_of(const c10::IValue& value) {
  std::string pickled;
  torch::jit::Pickler pickler([&](const char* data, size_t size) { pickled.append(data, size); },
                              nullptr, nullptr, nullptr, nullptr, /*tag_aggregates=*/false);
  pickler.protocol();
  pickler.pushIValue(value);
  pickler.stop();

  std::string bytes;
  caffe2::serialize::PyTorchStreamWriter writer([&](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
    return size;
  });
  int64_t number = 0;
  for (const torch::Tensor& tensor : pickler.tensorData()) {
    writer.writeRecord("data/" + std::to_string(number++), tensor.storage().data(),
                       tensor.storage().nbytes());
  }
  writer.writeRecord("data.pkl", pickled.data(), pickled.size());
  writer.writeEndOfFile();
  return bytes;
}

}  // namespace

torch::Tensor Standardizer::transform(const torch::Tensor& x) const {
  TR_REQUIRE(x.dim() >= 1 && x.size(-1) == int64_t(feature_names.size()),
             "Standardizer: x must have shape [..., P] with the P = {} features of "
             "training, got {}",
             feature_names.size(), x.sizes());
  // By way of float32, in which Python keeps a panel's features.
  const torch::Tensor columns =
      x.to(torch::kFloat)
          .to(torch::kDouble)
          .index_select(-1, torch::tensor(kept, torch::kLong).to(x.device()));
  return ((columns - mean.to(x.device())) / scale.to(x.device())).to(torch::kFloat);
}

ModelFile load_model_file(const std::string& path) {
  const Reader read(path, unpickle(path));
  const Dict root = read.root();
  const auto format = read.find(root, "format");
  TR_REQUIRE(format && format->isString() && format->toStringRef() == kFormat,
             "load_model_file: path must be a file of format '{}', got {}, which is "
             "of another kind",
             kFormat, path);
  const int64_t version = read.integer(read.find(root, "format_version"), "format_version");
  TR_REQUIRE(version <= kModelFileVersion,
             "load_model_file: format_version must be at most {}, got {} in {}; "
             "update topreach to read this file",
             kModelFileVersion, version, path);
  TR_REQUIRE(version >= 1, "load_model_file: format_version must be at least 1, got {} in {}",
             version, path);

  ModelFile file;
  file.model = read.text(read.find(root, "model"), "model");
  for (const auto& item : read.dict(read.find(root, "config"), "config"))
    file.config.emplace_back(item.key().toStringRef(), item.value());
  for (const auto& item : read.dict(read.find(root, "state"), "state")) {
    const std::string& name = item.key().toStringRef();
    file.state.emplace_back(name, read.tensor(item.value(), "state." + name));
  }
  file.standardizer =
      read_standardizer(read, read.dict(read.find(root, "standardizer"), "standardizer"));
  const Dict time = read.dict(read.find(root, "time"), "time");
  file.time_origin = read.number(read.find(time, "origin"), "time.origin");
  file.time_scale = read.number(read.find(time, "scale"), "time.scale");
  if (!(file.time_scale > 0)) read.fail("time.scale", "positive");
  file.site_ids = read.texts(read.find(root, "site_ids"), "site_ids");
  file.k = read.integer(read.find(root, "k"), "k");
  if (file.k < 1) read.fail("k", "at least 1");
  file.ranking = read.text(read.find(root, "ranking"), "ranking");
  if (file.ranking != "exact" && file.ranking != "ratio" && file.ranking != "mean" &&
      file.ranking != "score")
    read.fail("ranking", "'exact', 'ratio', 'mean' or 'score'");
  file.model_samples = read.integer(read.find(root, "model_samples"), "model_samples");
  if (file.model_samples < 1) read.fail("model_samples", "at least 1");
  file.key = read.tensor(read.find(root, "key"), "key");
  if (file.key.scalar_type() != torch::kLong || file.key.sizes() != at::IntArrayRef{2})
    read.fail("key", "an int64 tensor of shape [2]");
  file.window = read.integer(read.find(root, "window"), "window");
  if (file.window < 0) read.fail("window", "not negative");
  if (const auto uses = read.find(root, "uses_exposure")) {
    if (!uses->isBool()) read.fail("uses_exposure", "true or false");
    file.uses_exposure = uses->toBool();
  }
  if (const auto history = read.find(root, "site_history")) {
    file.site_history =
        read_site_history(read, read.dict(history, "site_history"), int64_t(file.site_ids.size()));
  }
  if (const auto columns = read.find(root, "columns")) {
    for (const auto& item : read.dict(columns, "columns")) {
      file.columns.emplace_back(item.key().toStringRef(), read.text(item.value(), "columns[...]"));
    }
  }
  return file;
}

void save_model_file(const ModelFile& file, const std::string& path) {
  const std::string bytes = archive_of(to_value(file));
  std::string temporary = path + ".XXXXXX";
  const int handle = mkstemp(temporary.data());
  TR_REQUIRE(handle >= 0,
             "save_model_file: path must be in a folder that can be written to, got "
             "{}: {}",
             path, std::strerror(errno));
  size_t written = 0;
  bool ok = true;
  while (ok && written < bytes.size()) {
    const ssize_t n = write(handle, bytes.data() + written, bytes.size() - written);
    ok = n > 0 || (n < 0 && errno == EINTR);
    if (n > 0) written += size_t(n);
  }
  const mode_t mask = umask(0);
  umask(mask);
  ok = ok && fchmod(handle, 0666 & ~mask) == 0 && fsync(handle) == 0;
  ok = close(handle) == 0 && ok;
  ok = ok && std::rename(temporary.c_str(), path.c_str()) == 0;
  const int error = errno;
  if (!ok) unlink(temporary.c_str());
  TR_REQUIRE(ok, "save_model_file: path could not be written, got {}: {}", path,
             std::strerror(error));
}

}  // namespace topreach
