// The model file: written and read again; damaged and foreign files; parts that do not fit.
#include "../../csrc/io/model_file.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "../../csrc/io/sha256.h"
#include "../../csrc/models/negbin_mixed_effects.h"
#include "../../csrc/programs/quotas.h"
#include "../../csrc/programs/with_effect.h"
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
  const topreach::NegBinMixedEffects model(4, 2);
  file.config = {{"num_sites", int64_t{4}}, {"num_features", int64_t{2}}, {"link", "softplus"},
                 {"penalty", "laplace"},    {"initial_mean", 1.5},        {"family", "nb1"},
                 {"zero_inflation", false}, {"site_slopes", "damped"},    {"slope_damping", 0.25}};
  torch::manual_seed(3);
  for (const auto& item : model->named_parameters())
    file.state.emplace_back(item.key(), torch::randn_like(item.value()));
  for (const auto& item : model->named_buffers())
    file.state.emplace_back(item.key(), item.value().clone());
  file.standardizer = {{"a", "b", "c"},
                       {0, 2},
                       torch::rand({2}, torch::kDouble),
                       torch::rand({2}, torch::kDouble) + 0.5};
  file.time_origin = 2018;
  file.time_scale = 1.25;
  file.calendar = topreach::Calendar("number", 1, 2016);
  file.fitted_times = {2016, 2017, 2018, 2019};
  file.past = {{2016, 2017, 2018, 2019}, torch::arange(16, torch::kFloat).view({4, 4}), {}, {}};
  file.last_features = torch::rand({4, 3});
  file.constant_features = torch::tensor({true, false, true});
  file.site_ids = {"0017", "x y", "\xC3\xA9t\xC3\xA9", ""};
  file.program_config = {{"k", 2.0}};
  file.ranking = "ratio";
  file.model_samples = 50;
  file.key = torch::tensor({int64_t{4294967295}, int64_t{7}});
  file.table = {{"spec", "{}"}};
  return file;
}

void expect_equal(const ModelFile& a, const ModelFile& b) {
  const auto same = [](const Tensor& one, const Tensor& other) {
    return one.defined() == other.defined() &&
           (!one.defined() || at::equal(one.nan_to_num(-1), other.nan_to_num(-1)));
  };
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
  EXPECT_TRUE(same(a.standardizer.mean, b.standardizer.mean));
  EXPECT_TRUE(same(a.standardizer.scale, b.standardizer.scale));
  EXPECT_EQ(a.time_origin, b.time_origin);
  EXPECT_EQ(a.time_scale, b.time_scale);
  EXPECT_EQ(a.calendar, b.calendar);
  EXPECT_EQ(a.fitted_times, b.fitted_times);
  EXPECT_EQ(a.past.times, b.past.times);
  EXPECT_TRUE(same(a.past.counts, b.past.counts));
  EXPECT_TRUE(same(a.past.upper, b.past.upper));
  EXPECT_TRUE(same(a.past.exposure, b.past.exposure));
  EXPECT_TRUE(same(a.last_features, b.last_features));
  EXPECT_EQ(a.site_ids, b.site_ids);
  EXPECT_EQ(a.program, b.program);
  EXPECT_EQ(a.program_config, b.program_config);
  EXPECT_EQ(a.ranking, b.ranking);
  EXPECT_EQ(a.model_samples, b.model_samples);
  EXPECT_TRUE(torch::equal(a.key, b.key));
  EXPECT_EQ(a.uses_exposure, b.uses_exposure);
  EXPECT_EQ(a.table, b.table);
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

// Digests of FIPS 180-4's examples.
TEST(Sha256, KnownDigests) {
  EXPECT_EQ(topreach::sha256("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(topreach::sha256(""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(topreach::sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST_F(ModelFileTest, RoundTrip) {
  const std::string digest = topreach::save_model_file(example(), path("model.pt"));
  const ModelFile read = topreach::load_model_file(path("model.pt"));
  expect_equal(read, example());
  EXPECT_EQ(read.digest, digest);
  EXPECT_FALSE(read.topreach_version.empty());
  // Only the file is left, and it can be overwritten.
  topreach::save_model_file(example(), path("model.pt"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(ModelFileTest, KeepsAProgramsStringsAndLists) {
  ModelFile file = example();
  const topreach::Quotas quotas(
      2, {topreach::plan::group_by("town", {"\xC3\xA9", "a", "", "a"}, {"a"}, {1}, {1})},
      {0, 0, -1, 0}, file.site_ids);
  const topreach::WithEffect program(std::make_shared<topreach::Quotas>(quotas), {1, .5, 0, 1},
                                     file.site_ids);
  file.program = program.name();
  file.program_config = program.config();
  topreach::save_model_file(file, path("model.pt"));
  expect_equal(topreach::load_model_file(path("model.pt")), file);
  const Ranker ranker = Ranker::load(path("model.pt"));
  EXPECT_EQ(ranker.program().describe(), "Quotas(k=2, 2 groups by town, by effect)");
  file.program_config[0].second = std::string("two");
  EXPECT_THROW(topreach::save_model_file(file, path("other.pt")), c10::ValueError);
}

TEST_F(ModelFileTest, LinksAndDevicesAreNotReplaced) {
  topreach::save_model_file(example(), path("real.pt"));
  std::filesystem::create_symlink("real.pt", path("link.pt"));
  std::filesystem::resize_file(path("real.pt"), 1);
  topreach::save_model_file(example(), path("link.pt"));
  EXPECT_TRUE(std::filesystem::is_symlink(path("link.pt")));
  EXPECT_EQ(refusal(path("real.pt")), "");
  if (std::filesystem::exists("/dev/full")) {
    EXPECT_THROW(topreach::save_model_file(example(), "/dev/full"), c10::ValueError);
    EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
  }
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
  EXPECT_THROW(topreach::save_model_file(example(), path("no/such/folder.pt")), c10::ValueError);
}

// The digest covers every byte: changed files are refused.
TEST_F(ModelFileTest, RefusesChangedBytes) {
  topreach::save_model_file(example(), path("model.pt"));
  const std::vector<char> bytes = bytes_of(path("model.pt"));
  uint64_t state = 1;
  const auto random = [&] {
    return (state = state * 6364136223846793005u + 1442695040888963407u) >> 33;
  };
  for (int i = 0; i < 200; ++i) {
    std::vector<char> changed = bytes;
    changed[random() % changed.size()] ^= char(1 << random() % 8);
    std::ofstream(path("changed.pt"), std::ios::binary)
        .write(changed.data(), std::streamsize(changed.size()));
    EXPECT_NE(refusal(path("changed.pt")), "") << i;
  }
}

// A Ranker refuses the same parts whether they come from a file or not.
TEST_F(ModelFileTest, RefusesPartsThatDoNotFit) {
  const auto refused = [&](ModelFile file) -> std::string {
    try {
      Ranker{file};
    } catch (const c10::ValueError& error) {
      return error.what_without_backtrace();
    }
    return "";
  };
  EXPECT_EQ(refused(example()), "");
  const auto with = [&](const auto& change) {
    ModelFile file = example();
    change(file);
    return refused(file);
  };
  const auto names = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(names(with([](auto& f) { f.model = "Oracle"; }), "got Oracle"));
  EXPECT_TRUE(
      names(with([](auto& f) { f.state[1].second = torch::zeros({5}); }), "must have shape"));
  EXPECT_TRUE(names(with([](auto& f) { f.state.pop_back(); }), "tensors, got"));
  EXPECT_TRUE(names(with([](auto& f) { f.state[0].second.fill_(NAN); }), "without NaN"));
  EXPECT_TRUE(names(with([](auto& f) { f.standardizer.kept = {0, 3}; }), "standardizer.kept"));
  EXPECT_TRUE(names(with([](auto& f) { f.standardizer.scale.zero_(); }), "scale"));
  EXPECT_TRUE(names(with([](auto& f) { f.ranking = "score"; }), "ranking must be"));
  EXPECT_TRUE(names(with([](auto& f) { f.ranking = "luck"; }), "ranking must be"));
  EXPECT_TRUE(names(with([](auto& f) { f.site_ids.pop_back(); }), "must be"));
  EXPECT_TRUE(names(with([](auto& f) { f.site_ids[1] = f.site_ids[0]; }), "site_ids"));
  EXPECT_TRUE(names(with([](auto& f) { f.key = torch::zeros({2}); }), "key must be"));
  EXPECT_TRUE(names(with([](auto& f) { f.config.pop_back(); }), "slope_damping"));
  EXPECT_TRUE(names(with([](auto& f) { f.program_config = {{"k", 0.0}}; }), "k of TopK"));
  EXPECT_TRUE(names(with([](auto& f) { f.program_config = {{"k", 9.0}}; }), "k must be at most"));
  EXPECT_TRUE(names(with([](auto& f) { f.program = "Luck"; }), "name must be"));
  EXPECT_TRUE(names(with([](auto& f) { f.model_samples = -1; }), "model_samples"));
  EXPECT_TRUE(names(with([](auto& f) { f.time_scale = 0; }), "time.scale"));
  EXPECT_TRUE(names(with([](auto& f) { f.past.counts[0][0] = -2; }), "past.counts"));
  EXPECT_TRUE(names(with([](auto& f) { f.fitted_times = {2016.5}; }), "Calendar.index"));
}

topreach::Panel next_year(const Tensor& x) {
  topreach::Panel panel;
  panel.site_ids = example().site_ids;
  panel.times = {2020};
  panel.feature_names = {"a", "b", "c"};
  panel.x = x;
  return panel;
}

TEST_F(ModelFileTest, RankerPlans) {
  const Ranker ranker(example());
  const auto x = torch::randn({1, 4, 3});
  const topreach::Plan plan = ranker.plan(next_year(x)).front();
  EXPECT_EQ(plan.period, "2020");
  EXPECT_EQ(plan.data_until, "2019");
  EXPECT_FALSE(plan.learnt);
  ASSERT_EQ(plan.sites.size(), 4u);
  EXPECT_EQ(plan.selected_ids().size(), 2u);
  for (size_t i = 1; i < 4; ++i) EXPECT_GE(plan.sites[i - 1].score, plan.sites[i].score);
  EXPECT_EQ(plan.sites[0].site, example().site_ids[size_t(plan.sites[0].index)]);
  const topreach::Plan again = ranker.plan_next(next_year(x));
  EXPECT_EQ(again.selected_ids(), plan.selected_ids());
  ranker.save(path("again.pt"));
  EXPECT_EQ(Ranker::load(path("again.pt")).plan_next(next_year(x)).sites[0].score,
            plan.sites[0].score);
  // Feature "a" varies over time and is needed; "b" was constant in training and is not.
  topreach::Panel without = next_year(x.slice(-1, 1));
  without.feature_names = {"b", "c"};
  EXPECT_NO_THROW(ranker.plan(without));  // "a" never changed at a site: it is carried forward
  without.feature_names = {"a", "b"};
  EXPECT_NO_THROW(ranker.plan(without));
  EXPECT_THROW(ranker.plan(next_year(torch::randn({1, 4, 2}))), c10::ValueError);
  EXPECT_THROW(ranker.plan(next_year(torch::full({1, 4, 3}, NAN))), c10::ValueError);
}

// A NaN never comes first: it is refused, by name.
TEST_F(ModelFileTest, NonFiniteCountsAreRefused) {
  const Ranker ranker(example());
  topreach::Panel table = next_year(torch::zeros({1, 4, 3}));
  table.y = torch::tensor({{1.0f, -2.0f, 0.0f, 3.0f}});
  EXPECT_THROW(ranker.plan(table), c10::ValueError);
  table.y = torch::full({1, 4}, NAN);  // not known: allowed
  EXPECT_NO_THROW(ranker.plan(table));
  table.times = {NAN};
  EXPECT_THROW(ranker.plan(table), c10::ValueError);
}

// Tensors of another shape, counts that are none, other periods: named, and not read past their end.
TEST_F(ModelFileTest, TablesOfAnotherShapeAreRefusedByName) {
  ModelFile file = example();
  file.calendar = topreach::Calendar("month", 1, 0, "%Y-%m");
  file.fitted_times = file.past.times = {0, 31, 59, 90};  // January to April 1970
  const Ranker ranker(file);
  const auto said = [&](const std::function<void(topreach::Panel&)>& change) -> std::string {
    topreach::Panel table = next_year(torch::zeros({1, 4, 3}));
    table.calendar = file.calendar;
    table.times = {120};
    table.y = torch::ones({1, 4});
    change(table);
    try {
      ranker.plan(table);
    } catch (const c10::ValueError& error) {
      return error.what_without_backtrace();
    }
    return "";
  };
  EXPECT_EQ(said([](topreach::Panel&) {}), "");
  EXPECT_EQ(said([](topreach::Panel& t) { t.y = torch::ones({4}); }),
            "Ranker::plan: y must have shape [T, S] = [1, 4], a row for each of the table's times, "
            "got [4]");
  EXPECT_EQ(said([](topreach::Panel& t) { t.opened = {0.0}; }),
            "Ranker::plan: opened must be empty or have a time for each of the 4 sites, got 1");
  EXPECT_EQ(said([](topreach::Panel& t) { t.y[0][1] = 0.5; }),
            "Ranker::plan: counts must hold whole numbers from 0 to 16777216, or NaN where a count "
            "is not known, got 0.5 for site 'x y' in 1970-05");
  EXPECT_NE(said([](topreach::Panel& t) { t.history_times = {90}; }).find("history must be given"),
            std::string::npos);
  EXPECT_NE(said([](topreach::Panel& t) { t.times = {130}; }).find("got 1970-05-11, within"),
            std::string::npos);
  const topreach::Calendar quarters("quarter", 1, 0, "%YQ%q");
  EXPECT_NE(said([&](topreach::Panel& t) { t.calendar = quarters; }).find("got quarters"),
            std::string::npos);
}

TEST_F(ModelFileTest, APipeWithoutAPathIsWrittenTo) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  topreach::save_model_file(example(), "/dev/fd/" + std::to_string(ends[1]));
  close(ends[1]);
  std::ofstream copy(path("copy.pt"), std::ios::binary);
  char part[4096];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) copy.write(part, n);
  close(ends[0]);
  copy.close();
  EXPECT_EQ(refusal(path("copy.pt")), "");
}

}  // namespace
