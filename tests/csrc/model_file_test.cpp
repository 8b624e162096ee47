// The model file and the ranker: written and read by C++, and exchanged with Python.
#include "../../csrc/io/model_file.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "../../csrc/objectives/decision_aware.h"
#include "../../csrc/ranker.h"

namespace {

using topreach::ModelFile;
using topreach::Ranker;
using torch::Tensor;

class ModelFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "topreach-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::filesystem::path folder_;
};

ModelFile example() {
  ModelFile file;
  file.model = "NegBinMixedEffects";
  file.config = {{"num_sites", int64_t{4}},
                 {"num_features", int64_t{2}},
                 {"link", "softplus"},
                 {"penalty", "laplace"},
                 {"initial_mean", 1.5}};
  torch::manual_seed(3);
  for (const auto& item : topreach::NegBinMixedEffects(4, 2)->named_parameters())
    file.state.emplace_back(item.key(), torch::randn_like(item.value()));
  file.standardizer = {{"a", "b", "c"},
                       {0, 2},
                       torch::rand({2}, torch::kDouble),
                       torch::rand({2}, torch::kDouble) + 0.5};
  file.time_origin = 2018;
  file.time_scale = 1.25;
  file.site_ids = {"0017", "x y", "\xC3\xA9t\xC3\xA9", ""};
  file.k = 2;
  file.ranking = "ratio";
  file.model_samples = 50;
  file.key = torch::tensor({int64_t{4294967295}, int64_t{7}});
  file.columns = {{"site", "tract"}};
  return file;
}

void expect_equal(const ModelFile& a, const ModelFile& b) {
  EXPECT_EQ(a.model, b.model);
  ASSERT_EQ(a.config.size(), b.config.size());
  for (size_t i = 0; i < a.config.size(); ++i) EXPECT_EQ(a.config[i].first, b.config[i].first);
  ASSERT_EQ(a.state.size(), b.state.size());
  for (size_t i = 0; i < a.state.size(); ++i) {
    EXPECT_EQ(a.state[i].first, b.state[i].first);
    EXPECT_TRUE(torch::equal(a.state[i].second, b.state[i].second));
  }
  EXPECT_EQ(a.standardizer.feature_names, b.standardizer.feature_names);
  EXPECT_EQ(a.standardizer.kept, b.standardizer.kept);
  EXPECT_TRUE(torch::equal(a.standardizer.mean, b.standardizer.mean));
  EXPECT_TRUE(torch::equal(a.standardizer.scale, b.standardizer.scale));
  EXPECT_EQ(a.time_origin, b.time_origin);
  EXPECT_EQ(a.time_scale, b.time_scale);
  EXPECT_EQ(a.site_ids, b.site_ids);
  EXPECT_EQ(a.k, b.k);
  EXPECT_EQ(a.ranking, b.ranking);
  EXPECT_EQ(a.model_samples, b.model_samples);
  EXPECT_TRUE(torch::equal(a.key, b.key));
  EXPECT_EQ(a.window, b.window);
  EXPECT_EQ(a.uses_exposure, b.uses_exposure);
  EXPECT_EQ(a.columns, b.columns);
}

std::vector<char> bytes_of(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// The message of the error that reading `path` raises.
std::string refusal(const std::string& path) {
  try {
    Ranker::load(path);
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "";
}

TEST_F(ModelFileTest, RoundTrip) {
  topreach::save_model_file(example(), path("model.pt"));
  expect_equal(topreach::load_model_file(path("model.pt")), example());
  // Nothing but the file is left, and writing over it works.
  topreach::save_model_file(example(), path("model.pt"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(ModelFileTest, RefusesWithAReason) {
  EXPECT_NE(refusal(path("absent.pt")).find("there is none"), std::string::npos);
  EXPECT_NE(refusal(folder_.string()).find("must be a file"), std::string::npos);
  topreach::save_model_file(example(), path("model.pt"));
  const std::vector<char> bytes = bytes_of(path("model.pt"));
  for (const size_t length :
       {size_t{0}, size_t{1}, size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    std::ofstream(path("cut.pt"), std::ios::binary).write(bytes.data(), std::streamsize(length));
    EXPECT_NE(refusal(path("cut.pt")).find("damaged, cut short or of another kind"),
              std::string::npos)
        << length;
  }
  std::ofstream(path("foreign.pt")) << "site,count\n1,2\n";
  EXPECT_NE(refusal(path("foreign.pt")).find("another kind"), std::string::npos);
  std::ofstream(path("other.pt"), std::ios::binary)
      .write(torch::pickle_save(torch::rand({3})).data(),
             std::streamsize(torch::pickle_save(torch::rand({3})).size()));
  EXPECT_NE(refusal(path("other.pt")), "");
  EXPECT_THROW(topreach::save_model_file(example(), path("no/such/folder.pt")), c10::ValueError);
}

// Bytes that changed: refused, or without effect on what is read; never a crash.
TEST_F(ModelFileTest, SurvivesChangedBytes) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP()
      << "torch's reader may ask for a string of a damaged length; where operator new then "
         "throws, AddressSanitizer's ends the program";
#endif
  topreach::save_model_file(example(), path("model.pt"));
  const std::vector<char> bytes = bytes_of(path("model.pt"));
  uint64_t state = 1;
  const auto random = [&] {
    return (state = state * 6364136223846793005u + 1442695040888963407u) >> 33;
  };
  int refused = 0;
  for (int i = 0; i < 200; ++i) {
    std::vector<char> changed = bytes;
    for (uint64_t flips = 1 + random() % 3; flips > 0; --flips)
      changed[random() % changed.size()] ^= char(1 << random() % 8);
    std::ofstream(path("changed.pt"), std::ios::binary)
        .write(changed.data(), std::streamsize(changed.size()));
    refused += refusal(path("changed.pt")).empty() ? 0 : 1;
  }
  EXPECT_GT(refused, 40);
}

TEST_F(ModelFileTest, RefusesPartsThatDoNotFit) {
  const auto saved = [&](ModelFile file) {
    topreach::save_model_file(file, path("model.pt"));
    return refusal(path("model.pt"));
  };
  EXPECT_EQ(saved(example()), "");
  ModelFile file = example();
  file.model = "Oracle";
  EXPECT_NE(saved(file).find("got Oracle"), std::string::npos);
  file = example();
  file.state[1].second = torch::zeros({5});
  EXPECT_NE(saved(file).find("must have shape"), std::string::npos);
  file = example();
  file.state.pop_back();
  EXPECT_NE(saved(file).find("must have 7 tensors"), std::string::npos);
  file = example();
  file.standardizer.kept = {0, 3};
  EXPECT_NE(saved(file).find("standardizer.kept"), std::string::npos);
  file = example();
  file.ranking = "score";
  EXPECT_NE(saved(file).find("ranking must be"), std::string::npos);
  file = example();
  file.site_ids.pop_back();
  EXPECT_NE(saved(file).find("site_ids"), std::string::npos);
  file = example();
  file.key = torch::zeros({2});
  EXPECT_NE(saved(file).find("key must be"), std::string::npos);
  file = example();
  file.config.pop_back();
  EXPECT_NE(saved(file).find("initial_mean"), std::string::npos);
}

TEST_F(ModelFileTest, RankerRanks) {
  Ranker ranker(example());
  const auto x = torch::randn({4, 3});
  const auto scores = ranker.score_sites(x, 2020);
  EXPECT_TRUE(torch::equal(scores, ranker.score_sites(x, 2020)));
  const auto places = ranker.rank(x, 2020);
  ASSERT_EQ(places.size(), 2u);
  EXPECT_EQ(places[0].index, scores.argmax().item<int64_t>());
  EXPECT_EQ(places[0].site, example().site_ids[size_t(places[0].index)]);
  EXPECT_EQ(ranker.rank(x, 2020, std::nullopt, 4).size(), 4u);
  ranker.save(path("again.pt"));
  EXPECT_TRUE(torch::equal(Ranker::load(path("again.pt")).score_sites(x, 2020), scores));
  EXPECT_THROW(ranker.score_sites(torch::randn({4, 2}), 2020), c10::ValueError);
  EXPECT_THROW(ranker.score_sites(torch::randn({3, 3}), 2020), c10::ValueError);
  EXPECT_THROW(ranker.rank(x, 2020, std::nullopt, 5), c10::ValueError);
}

TEST_F(ModelFileTest, RankerHasPaths) {
  ModelFile file = example();
  for (auto& [name, value] : file.config)
    if (name == "link") value = "log";
  file.config.emplace_back("site_path", "ar1");
  const auto level = torch::tensor({0.5, -1.0, 2.0, 0.0}).view({1, 4});
  file.state.emplace_back("raw_path_sigma", torch::zeros({}));
  file.state.emplace_back("raw_path_rho", torch::zeros({}));  // phi = 1/2
  file.state.emplace_back("path_time", torch::tensor({-1.0, 0.0, 1.0}));
  file.state.emplace_back("path_effect", torch::cat({level * 0, level, level * 4}));
  file.ranking = "mean";
  const Ranker ranker(file);
  const auto x = torch::randn({4, 3});
  const auto at = [&](double t) {  // less what the model has without a path
    file.config.pop_back();
    ModelFile plain = file;
    plain.state.resize(plain.state.size() - 4);
    const auto without = Ranker(plain).expected_counts(x, 2018 + 1.25 * t);
    file.config.emplace_back("site_path", "ar1");
    return (ranker.expected_counts(x, 2018 + 1.25 * t) / without).log();
  };
  const auto want = level.squeeze(0);
  EXPECT_TRUE(torch::allclose(at(0), want, 1e-4, 1e-5));
  EXPECT_TRUE(torch::allclose(at(1), want * 4, 1e-4, 1e-5));
  EXPECT_TRUE(torch::allclose(at(3), want, 1e-4, 1e-5));  // phi^2 of it, two periods on
  ranker.save(path("model.pt"));
  EXPECT_TRUE(torch::equal(Ranker::load(path("model.pt")).expected_counts(x, 2020),
                           ranker.expected_counts(x, 2020)));
  const auto refused = [&](const std::string& name, const torch::Tensor& value) {
    ModelFile bad = file;
    for (auto& item : bad.state)
      if (item.first == name) item.second = value;
    EXPECT_THROW(Ranker{bad}, c10::ValueError) << name;
  };
  refused("path_time", torch::tensor({0.0, 1.0}));
  refused("path_time", torch::tensor({0.0, -1.0, 1.0}));
  refused("path_effect", torch::zeros({3, 3}));
  refused("path_effect", torch::full({3, 4}, std::nan("")));
  file.state.pop_back();
  EXPECT_THROW(Ranker{file}, c10::ValueError);
}

TEST_F(ModelFileTest, RankerTakesExposure) {
  ModelFile file = example();
  file.uses_exposure = true;
  file.ranking = "mean";
  const Ranker ranker(file);
  const auto x = torch::randn({4, 3});
  const auto people = torch::tensor({10.0, 200.0, 3.0, 0.5}, torch::kDouble);
  // The mean is proportional to the exposure.
  const auto rates = ranker.expected_counts(x, 2020, std::nullopt, torch::ones({4}));
  const auto counts = ranker.expected_counts(x, 2020, std::nullopt, people);
  EXPECT_TRUE(torch::allclose(counts, rates * people.to(torch::kFloat), 1e-5));
  EXPECT_TRUE(torch::equal(ranker.score_sites(x, 2020, std::nullopt, people), counts));
  const auto places = ranker.rank(x, 2020, std::nullopt, 4, {}, people);
  EXPECT_EQ(places[0].index, counts.argmax().item<int64_t>());
  EXPECT_EQ(places[0].expected_count.value(), counts.max().item<double>());
  EXPECT_THROW(ranker.rank(x, 2020), c10::ValueError);
  EXPECT_THROW(Ranker(example()).score_sites(x, 2020, std::nullopt, people), c10::ValueError);
  EXPECT_THROW(ranker.score_sites(x, 2020, std::nullopt, people.slice(0, 1)), c10::ValueError);
  EXPECT_THROW(ranker.score_sites(x, 2020, std::nullopt, people - 0.5), c10::ValueError);
  ranker.save(path("model.pt"));
  EXPECT_TRUE(Ranker::load(path("model.pt")).uses_exposure());
}

// tests/python/test_model_file.py puts <name>.pt and <name>.inputs.pt (x, time, history, exposure,
// scores)
// into a folder that it names here, and reads <name>.rewritten.pt afterwards.
TEST(ModelFileExchange, WithPython) {
  const char* folder = std::getenv("TOPREACH_EXCHANGE");
  if (folder == nullptr) GTEST_SKIP() << "run by tests/python/test_model_file.py";
  int files = 0;
  for (const std::string name :
       {"negbin", "negbin_exact", "negbin_mean", "exposure", "nb2", "zero_inflated", "poisson",
        "ar1", "random_walk", "linear", "mlp", "normal_mixture", "poisson_mixture",
        "poisson_mixture_ratio", "empirical_bayes", "empirical_bayes_past"}) {
    const std::string base = std::string(folder) + "/" + name;
    if (!std::filesystem::exists(base + ".pt")) continue;
    ++files;
    const Ranker ranker = Ranker::load(base + ".pt");
    const auto inputs = torch::pickle_load(bytes_of(base + ".inputs.pt")).toGenericDict();
    std::optional<torch::Tensor> history, exposure;
    if (inputs.at("history").isTensor()) history = inputs.at("history").toTensor();
    if (inputs.at("exposure").isTensor()) exposure = inputs.at("exposure").toTensor();
    const auto scores = ranker.score_sites(inputs.at("x").toTensor(), inputs.at("time").toDouble(),
                                           history, exposure);
    const auto expected = inputs.at("scores").toTensor();
    EXPECT_TRUE(torch::equal(scores, expected))
        << name << ": " << (scores - expected).abs().max().item<double>();
    const auto places = ranker.rank(inputs.at("x").toTensor(), inputs.at("time").toDouble(),
                                    history, std::nullopt, {}, exposure);
    const auto wanted = inputs.at("order").toListRef();
    ASSERT_EQ(places.size(), wanted.size());
    for (size_t i = 0; i < places.size(); ++i) EXPECT_EQ(places[i].index, wanted[i].toInt());
    ranker.save(base + ".rewritten.pt");
  }
  EXPECT_NE(refusal(std::string(folder) + "/newer.pt").find("update topreach"), std::string::npos);
  EXPECT_NE(refusal(std::string(folder) + "/list.pt").find("must be a dictionary"),
            std::string::npos);
  EXPECT_NE(refusal(std::string(folder) + "/state.pt").find("of another kind"), std::string::npos);
  const std::string base = std::string(folder) + "/objective.pt";
  const auto given = torch::pickle_load(bytes_of(base)).toGenericDict();
  const auto tensor = [&](const char* name) { return given.at(name).toTensor(); };
  const topreach::NegativeBinomial counts{tensor("total_count"), tensor("logits")};
  const auto agree = [&](const std::string& name, const topreach::DirectBPROptions& reach) {
    const auto daml =
        topreach::decision_aware(counts, tensor("y"), {.epsilon = 0.8, .reach = reach});
    const auto direct = topreach::direct_bpr(tensor("total_count"), tensor("y"), reach);
    EXPECT_TRUE(torch::equal(daml.loss, tensor(("decision_aware" + name).c_str()))) << name;
    EXPECT_TRUE(torch::equal(direct.loss, tensor(("direct_bpr" + name).c_str()))) << name;
  };
  agree("", {.k = 20, .sigma = 0.01});
  agree("_mean_field", {.k = 20, .sigma = 0.01, .ranking = "mean", .topk = "mean_field"});
  agree("_sampled",
        {.k = 20, .sigma = 0.01, .ranking = "ratio", .topk = "sampled", .key = tensor("key")});
  const topreach::SiteMixture<topreach::TruncatedNormal> mixture{
      tensor("mixture_logits"), {tensor("mixture_loc"), tensor("mixture_scale")}};
  const auto mixtures_agree = [&](const std::string& name,
                                  const topreach::DirectBPROptions& reach) {
    const Tensor y = tensor("mixture_y");
    const auto equal = [&](const char* objective, const topreach::ObjectiveValue& value) {
      EXPECT_TRUE(torch::equal(value.loss, tensor((objective + name).c_str())))
          << objective << name;
    };
    equal("mixture_decision_aware",
          topreach::decision_aware(mixture, y, {.epsilon = 0.8, .reach = reach}));
    equal("mixture_direct_bpr", topreach::direct_bpr(mixture, y, reach));
    equal("mixture_nll", topreach::nll(mixture, y));
  };
  mixtures_agree("", {.k = 3, .sigma = 0.02});
  mixtures_agree("_mean_field", {.k = 3, .sigma = 0.02, .ranking = "mean", .topk = "mean_field"});
  mixtures_agree(
      "_sampled",
      {.k = 3, .sigma = 0.02, .ranking = "ratio", .topk = "sampled", .key = tensor("key")});
  EXPECT_GT(files, 0);
}

}  // namespace
