#include "model_file.h"

#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/pickler.h>
#include <torch/version.h>

#include "../require.h"
#include "atomic_file.h"
#include "model_file_format.h"

namespace topreach {

namespace {

using Dict = c10::impl::GenericDict;
using List = c10::impl::GenericList;

template <typename T>
List list_of(const std::vector<T>& values) {
  List list(c10::AnyType::get());
  for (const auto& value : values) list.push_back(value);
  return list;
}

Dict new_dict() { return Dict(c10::StringType::get(), c10::AnyType::get()); }

// Turns typed lists into lists of any type. The pickler writes those plainly; lists of integers would
// call a function that Python's weights_only=True refuses.
c10::IValue plain(const c10::IValue& value) {
  if (!value.isList()) return value;
  List list(c10::AnyType::get());
  for (const auto& item : value.toListRef()) list.push_back(item);
  return list;
}

c10::IValue to_value(const ProgramArgument& argument) {
  if (const auto* number = std::get_if<double>(&argument)) return *number;
  if (const auto* text = std::get_if<std::string>(&argument)) return *text;
  if (const auto* numbers = std::get_if<std::vector<double>>(&argument)) return list_of(*numbers);
  return list_of(std::get<std::vector<std::string>>(argument));
}

Dict to_dict(const SiteHistory& history) {
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
  dict.insert("mean_exposure", history.mean_exposure);
  dict.insert("smoothing", history.smoothing);
  dict.insert("seasonal_smoothing", history.seasonal_smoothing);
  dict.insert("graphs", graphs);
  return dict;
}

Dict to_dict(const NamedValues& values) {
  Dict dict = new_dict();
  for (const auto& [name, value] : values) dict.insert(name, plain(value));
  return dict;
}

void insert_if_defined(Dict& dict, const char* name, const torch::Tensor& tensor) {
  if (tensor.defined()) dict.insert(name, tensor.detach().cpu().contiguous());
}

c10::IValue to_value(const ModelFile& file) {
  Dict state = new_dict(), standardizer = new_dict(), time = new_dict(), calendar = new_dict(),
       past = new_dict(), program = new_dict(), program_config = new_dict(), table = new_dict(),
       written_by = new_dict();
  written_by.insert("topreach", TOPREACH_VERSION);
  written_by.insert("torch", TORCH_VERSION);
  for (const auto& [name, tensor] : file.state)
    state.insert(name, tensor.detach().cpu().contiguous());
  standardizer.insert("feature_names", list_of(file.standardizer.feature_names));
  standardizer.insert("kept", list_of(file.standardizer.kept));
  standardizer.insert("mean", file.standardizer.mean.cpu());
  standardizer.insert("scale", file.standardizer.scale.cpu());
  time.insert("origin", file.time_origin);
  time.insert("scale", file.time_scale);
  calendar.insert("unit", file.calendar.unit());
  calendar.insert("step", file.calendar.step());
  calendar.insert("origin", file.calendar.origin());
  calendar.insert("format", file.calendar.format());
  past.insert("times", list_of(file.past.times));
  insert_if_defined(past, "counts", file.past.counts);
  insert_if_defined(past, "upper", file.past.upper);
  insert_if_defined(past, "exposure", file.past.exposure);
  for (const auto& [name, value] : file.program_config)
    program_config.insert(name, to_value(value));
  program.insert("name", file.program);
  program.insert("config", program_config);
  for (const auto& [name, value] : file.table) table.insert(name, value);
  Dict root = new_dict();
  root.insert("format", kModelFileFormat);
  root.insert("format_version", kModelFileVersion);
  root.insert("written_by", written_by);
  root.insert("model", file.model);
  root.insert("config", to_dict(file.config));
  root.insert("state", state);
  root.insert("fit", to_dict(file.fit));
  root.insert("standardizer", standardizer);
  root.insert("time", time);
  root.insert("calendar", calendar);
  root.insert("fitted_times", list_of(file.fitted_times));
  root.insert("past", past);
  insert_if_defined(root, "last_features", file.last_features);
  insert_if_defined(root, "constant_features", file.constant_features);
  root.insert("site_ids", list_of(file.site_ids));
  root.insert("opened", list_of(file.opened));
  root.insert("closed", list_of(file.closed));
  root.insert("program", program);
  root.insert("ranking", file.ranking);
  root.insert("model_samples", file.model_samples);
  root.insert("key", file.key.cpu());
  root.insert("uses_exposure", file.uses_exposure);
  if (file.site_history) root.insert("site_history", to_dict(*file.site_history));
  root.insert("table", table);
  return root;
}

// torch::pickle_save tags every list and dictionary with its C++ type, by a function that Python's
// weights_only=True refuses. Here the pickler leaves the tags out; the archive is otherwise the same.
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
  TR_REQUIRE(
      x.dim() >= 1 && x.size(-1) == int64_t(feature_names.size()),
      "Standardizer: x must have shape [..., P] with the P = {} features of training, got {}",
      feature_names.size(), x.sizes());
  // Via float32, in which Python keeps a panel's features.
  const torch::Tensor columns =
      x.to(torch::kFloat)
          .to(torch::kDouble)
          .index_select(-1, torch::tensor(kept, torch::kLong).to(x.device()));
  return ((columns - mean.to(x.device())) / scale.to(x.device())).to(torch::kFloat);
}

std::string model_file_bytes(const ModelFile& file) {
  check_model_file("model_file_bytes", file);
  return with_digest(archive_of(to_value(file))).archive;
}

std::string save_model_file(const ModelFile& file, const std::string& path) {
  check_model_file("save_model_file", file);
  const CheckedArchive whole = with_digest(archive_of(to_value(file)));
  write_whole_file("save_model_file", path, whole.archive);
  return whole.digest;
}

}  // namespace topreach
