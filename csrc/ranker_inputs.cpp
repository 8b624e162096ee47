#include "ranker_inputs.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <unordered_map>

#include "require.h"
#include "words.h"

namespace topreach {

namespace {
constexpr int64_t kMostPeriods = 1'000'000;  // of a timeline, known or not
constexpr double kRevised = 1e-3;  // share by which an exposure may differ from training's unsaid

class Merge {
 public:
  Merge(const char* function, const ModelFile& file, const Needs& needs, const Panel* table)
      : function_(function),
        file_(file),
        needs_(needs),
        table_(table) {
    if (table != nullptr) {
      check_panel(function, *table);
      TR_REQUIRE(
          !table->y_upper.defined() || !(needs.past || needs.window > 0) ||
              table->y_upper.eq(table->y).logical_or(table->y.isnan()).all().item<bool>(),
          "{}: counts must be exact for {}, which reads the past, got some that are only known "
          "to lie in an interval (y_upper)",
          function, file.model);
    }
    for (const double time : file.fitted_times) fitted_.insert(file.calendar.index(time));
    TR_REQUIRE(
        table == nullptr || !table->exposure.defined() || file.uses_exposure || !needs.exposure,
        "{}: panel must have no exposure, as the training panel, got one. Name its column for "
        "both, or for neither.",
        function);
    find_sites();
    find_periods();
    add_past();
    find_open_sites();
  }

  RankerInputs inputs(std::optional<int64_t> periods_ahead) {
    find_wanted(periods_ahead);
    RankerInputs& out = out_;
    const int64_t periods = int64_t(out.times.size()), sites = num_sites();
    describe_wanted();
    out.model.x = features();
    out.model.time = torch::empty({periods}, torch::kFloat);
    for (int64_t t = 0; t < periods; ++t)
      out.model.time[t] = float((out.times[size_t(t)] - file_.time_origin) / file_.time_scale);
    if (!opened_.empty() || !closed_.empty()) out.open = open_sites();
    if (file_.uses_exposure) out.model.exposure = exposure();
    if (needs_.past || needs_.window > 0) make_timeline();
    if (needs_.window > 0) out.model.history = windows();
    if (table_ != nullptr && table_->y.defined()) out.y = of_wanted(table_->y, NAN);
    if (table_ != nullptr && table_->y_upper.defined())
      out.y_upper = of_wanted(table_->y_upper, NAN);
    out.past_totals = torch::tensor(past_totals(), torch::kDouble);
    TR_REQUIRE(sites >= 1, "{}: table must have at least one site, got none", function_);
    return std::move(out_);
  }

 private:
  int64_t num_sites() const { return int64_t(out_.site_ids.size()); }
  std::string label(int64_t index) const { return file_.calendar.label(file_.calendar.at(index)); }
  // The first wrong cell of a period's row [S].
  std::string cell(const torch::Tensor& row, const torch::Tensor& wrong, int64_t index) const {
    const int64_t s = wrong.nonzero()[0].item<int64_t>();
    return fmt::format("{} for site '{}' in {}", number_text(row[s].item<double>(), 6),
                       out_.site_ids[size_t(s)], label(index));
  }
  void check_exposure(const torch::Tensor& row, const torch::Tensor& needed, int64_t index) const {
    const torch::Tensor wrong =
        row.gt(0).logical_and(row.isfinite()).logical_not().logical_and(needed);
    if (wrong.any().item<bool>())
      TR_REQUIRE(false, "{}: exposure must be finite and > 0, got {}", function_,
                 cell(row, wrong, index));
  }

  // ---- sites ------------------------------------------------------------------------------------
  void find_sites() {
    std::unordered_map<std::string, int64_t> in_file;
    for (size_t s = 0; s < file_.site_ids.size(); ++s) in_file[file_.site_ids[s]] = int64_t(s);
    out_.site_ids = file_.site_ids;
    if (table_ == nullptr) {
      in_file_ = torch::arange(num_sites());
      return;
    }
    std::unordered_map<std::string, int64_t> in_table;
    for (size_t s = 0; s < table_->site_ids.size(); ++s) {
      const bool fresh = in_table.emplace(table_->site_ids[s], int64_t(s)).second;
      TR_REQUIRE(fresh, "{}: table must name each site once, got '{}' twice", function_,
                 table_->site_ids[s]);
    }
    if (needs_.sites) {
      std::vector<std::string> unknown;
      for (const std::string& site : table_->site_ids)
        if (!in_file.contains(site)) unknown.push_back(site);
      std::ranges::sort(unknown);
      TR_REQUIRE(
          unknown.empty(),
          "{}: table must have the sites that the model was fitted with, got {} unknown site(s) "
          "that it does not know: {}.{} Drop their rows, or fit the model with them.",
          function_, unknown.size(), listed(unknown),
          unknown.empty() ? "" : did_you_mean(unknown[0], file_.site_ids));
    } else {
      out_.site_ids = table_->site_ids;
    }
    std::vector<int64_t> to_table, to_file;
    std::vector<std::string> absent;
    for (const std::string& site : out_.site_ids) {
      const auto found = in_table.find(site);
      to_table.push_back(found == in_table.end() ? -1 : found->second);
      const auto known = in_file.find(site);
      to_file.push_back(known == in_file.end() ? -1 : known->second);
      const bool may_be_absent = to_file.back() >= 0 && !file_.closed.empty() &&
                                 !std::isnan(file_.closed[size_t(to_file.back())]);
      if (to_table.back() < 0 && !may_be_absent) absent.push_back(site);
    }
    TR_REQUIRE(
        absent.empty(),
        "{}: table must have all sites that the model was fitted with, got {} site(s) that it "
        "lacks: {}. Add their rows.",
        function_, absent.size(), listed(absent));
    in_table_ = torch::tensor(to_table, torch::kLong);
    in_file_ = torch::tensor(to_file, torch::kLong);
  }

  // Columns of `values` [..., S of the table] in the order of the sites ranked; `absent` for sites that the
  // table lacks.
  torch::Tensor of_sites(const torch::Tensor& values, const torch::Tensor& at,
                         double absent) const {
    const torch::Tensor missing = at.lt(0);
    const torch::Tensor picked =
        values.to(torch::kCPU, torch::kFloat).index_select(-1, at.clamp_min(0));
    return missing.any().item<bool>() ? picked.masked_fill(missing, absent) : picked;
  }

  // ---- periods ----------------------------------------------------------------------------------
  void find_periods() {
    if (table_ == nullptr) return;
    const Calendar& own = table_->calendar;
    const Calendar& fitted = file_.calendar;
    TR_REQUIRE(own.is_dates() == fitted.is_dates(),
               "{}: times must be {} as in training ({}), got {} ({}). Write them as in training.",
               function_, fitted.is_dates() ? "dates" : "numbers", fitted.describe(),
               own.is_dates() ? "dates" : "numbers", own.describe());
    if (table_->times.size() + table_->history_times.size() >= 3) fitted.check_same(function_, own);
    check_on_calendar(function_, fitted, *table_);
    const auto add = [&](const std::vector<double>& times, std::vector<int64_t>& indices) {
      for (const double time : times) {
        const int64_t index = fitted.index(time);
        TR_REQUIRE(
            seen_.insert(index).second,
            "{}: table must have one time per period of training ({}), got two in {}. Sum its "
            "rows over the period first.",
            function_, fitted.describe(), label(index));
        indices.push_back(index);
      }
    };
    add(table_->history_times, history_at_);
    add(table_->times, table_at_);
  }

  // ---- the past ---------------------------------------------------------------------------------
  void add_past() {
    const KnownPast& past = file_.past;
    for (size_t n = 0; n < past.times.size(); ++n)
      known_[file_.calendar.index(past.times[n])] =
          of_sites(past.counts[int64_t(n)], in_file_, NAN);
    if (table_ == nullptr) return;
    for (size_t h = 0; h < history_at_.size(); ++h)
      add_row(history_at_[h], of_sites(table_->history[int64_t(h)], in_table_, NAN));
    if (!table_->y.defined()) return;
    for (size_t t = 0; t < table_at_.size(); ++t)
      add_row(table_at_[t], of_sites(table_->y[int64_t(t)], in_table_, NAN));
  }

  // The exposure of the known periods, on the timeline.
  torch::Tensor past_exposure(int64_t first, int64_t periods) {
    torch::Tensor result = torch::full({periods, num_sites()}, NAN, torch::kFloat);
    std::vector<std::string> changed;
    const auto put = [&](int64_t index, const torch::Tensor& row) {
      if (index < first || index >= first + periods) return;
      const torch::Tensor before = result[index - first];
      const torch::Tensor same = (before - row).abs().le(kRevised * before.abs());
      if (before.isnan().logical_or(row.isnan()).logical_or(same).logical_not().any().item<bool>())
        changed.push_back(label(index));
      result[index - first].copy_(torch::where(row.isnan(), before, row));
    };
    for (size_t n = 0; file_.past.exposure.defined() && n < file_.past.times.size(); ++n)
      put(file_.calendar.index(file_.past.times[n]),
          of_sites(file_.past.exposure[int64_t(n)], in_file_, NAN));
    for (const auto& [index, row] : exposure_of_table()) put(index, row);
    if (!changed.empty())
      out_.notes.push_back("the exposure of " + listed(changed) +
                           " is another in the table than in training; the table's is used");
    // A period with known counts but without exposure takes the exposure of the period before.
    std::vector<std::string> carried;
    for (int64_t n = 1; n < periods; ++n) {
      const torch::Tensor before = result[n - 1].clone();
      const torch::Tensor missing = result[n].isnan().logical_and(before.isnan().logical_not());
      if (!missing.any().item<bool>()) continue;
      result[n].copy_(torch::where(missing, before, result[n]));
      if (out_.model.timeline[n].isnan().logical_not().any().item<bool>())
        carried.push_back(label(first + n));
    }
    if (!carried.empty())
      out_.notes.push_back("the exposure of " + listed(carried) +
                           " is not known; it is taken as that of the period before");
    for (int64_t n = 0; n < periods; ++n)
      check_exposure(result[n], out_.model.timeline[n].isnan().logical_not(), first + n);
    return result;
  }

  // Events of the known periods, in order; per exposure, where the model predicts that.
  std::vector<double> past_totals() const {
    std::map<int64_t, torch::Tensor> exposure;
    if (file_.uses_exposure) {
      for (size_t n = 0; file_.past.exposure.defined() && n < file_.past.times.size(); ++n)
        exposure[file_.calendar.index(file_.past.times[n])] =
            of_sites(file_.past.exposure[int64_t(n)], in_file_, NAN);
      for (const auto& [index, row] : exposure_of_table()) exposure[index] = row;
    }
    std::vector<double> totals;
    for (const auto& [index, row] : known_) {
      torch::Tensor seen = row.isnan().logical_not();
      double per = 1;
      if (file_.uses_exposure) {
        const auto found = exposure.find(index);
        if (found == exposure.end()) continue;
        seen = seen.logical_and(found->second.isnan().logical_not());
        per = found->second.masked_select(seen).sum().item<double>();
      }
      if (seen.any().item<bool>())
        totals.push_back(row.masked_select(seen).sum().item<double>() / per);
    }
    return totals;
  }

  void add_row(int64_t index, const torch::Tensor& row) {
    if (row.isnan().all().item<bool>()) return;
    const torch::Tensor wrong = row.lt(0).logical_or(row.isinf());
    if (wrong.any().item<bool>())
      TR_REQUIRE(false, "{}: counts must be finite and not negative, got {}", function_,
                 cell(row, wrong, index));
    const auto [at, fresh] = known_.emplace(index, row);
    if (fresh) return;
    torch::Tensor& before = at->second;
    const torch::Tensor other = before.isnan()
                                    .logical_not()
                                    .logical_and(row.isnan().logical_not())
                                    .logical_and(before.ne(row));
    if (other.any().item<bool>()) {
      const int64_t s = other.nonzero()[0].item<int64_t>();
      TR_REQUIRE(
          false,
          "{}: counts must be those that the model learned from, got {}, where it knows {} ({} "
          "such "
          "counts). If the older ones were corrected, fit the model again; else mend the table.",
          function_, cell(row, other, index), number_text(before[s].item<double>(), 6),
          other.sum().item<int64_t>());
    }
    before = torch::where(before.isnan(), row, before);
  }

  // The last period before `index` with any known count.
  std::optional<int64_t> last_known(int64_t index) const {
    for (auto at = known_.lower_bound(index); at != known_.begin();) {
      --at;
      if (!at->second.isnan().all().item<bool>()) return at->first;
    }
    return std::nullopt;
  }

  // ---- what to rank -----------------------------------------------------------------------------
  void find_wanted(std::optional<int64_t> periods_ahead) {
    if (!periods_ahead) {
      TR_REQUIRE(table_ != nullptr && !table_at_.empty(),
                 "{}: table must have periods to rank, got none", function_);
      wanted_ = table_at_;
      out_.times = table_->times;
    } else {
      TR_REQUIRE(*periods_ahead >= 1, "{}: periods_ahead must be a whole number >= 1, got {}",
                 function_, *periods_ahead);
      std::optional<int64_t> last = last_known(std::numeric_limits<int64_t>::max());
      if (!last && !fitted_.empty()) last = *fitted_.rbegin();
      TR_REQUIRE(last.has_value(), "{}: the past must be known, got none", function_);
      wanted_ = {*last + *periods_ahead};
      out_.times = {file_.calendar.at(wanted_[0])};
    }
    for (const int64_t index : wanted_) {
      const auto found = std::ranges::find(table_at_, index);
      row_in_table_.push_back(found == table_at_.end() ? -1 : found - table_at_.begin());
    }
  }

  void describe_wanted() {
    std::vector<std::string> learnt, far;
    for (size_t t = 0; t < wanted_.size(); ++t) {
      const int64_t index = wanted_[t];
      out_.periods.push_back(label(index));
      out_.learnt.push_back(fitted_.contains(index));
      if (out_.learnt.back()) learnt.push_back(label(index));
      const std::optional<int64_t> last = last_known(index);
      out_.data_until.push_back(last ? label(*last) : "");
      out_.ahead.push_back(last ? index - *last : 0);
      if (last && index - *last > 1)
        far.push_back(fmt::format("{} is planned from counts up to {}, {} periods before",
                                  label(index), label(*last), index - *last));
      if (!last && (needs_.past || needs_.window > 0))
        far.push_back(fmt::format("no counts before {} are known", label(index)));
    }
    if (!learnt.empty())
      out_.notes.push_back(
          "the model has learned from " + listed(learnt) +
          ": a ranking of these periods is no forecast, and their scores are no test");
    for (size_t i = 0; i < std::min<size_t>(far.size(), 3); ++i) out_.notes.push_back(far[i]);
    if (known_.empty() || !(needs_.past || needs_.window > 0)) return;
    std::vector<std::string> gaps;
    const int64_t end = *std::ranges::max_element(wanted_), first = known_.begin()->first;
    const auto last = last_known(end);
    for (int64_t i = first; last && i < *last && gaps.size() < 1000; ++i) {
      const auto at = known_.find(i);
      if (at == known_.end() || at->second.isnan().all().item<bool>()) gaps.push_back(label(i));
    }
    if (!gaps.empty())
      out_.notes.push_back("the counts of " + listed(gaps) +
                           " are not known; they are not taken as zero");
  }

  // Rows of a table's tensor [T, S] for the periods to rank, [T to rank, S].
  torch::Tensor of_wanted(const torch::Tensor& values, double absent) const {
    std::vector<torch::Tensor> rows;
    for (const int64_t row : row_in_table_)
      rows.push_back(row < 0 ? torch::full({num_sites()}, absent, torch::kFloat)
                             : of_sites(values[row], in_table_, absent));
    return torch::stack(rows);
  }

  // Periods and exposure [S] of the table, of its history first.
  std::vector<std::pair<int64_t, torch::Tensor>> exposure_of_table() const {
    std::vector<std::pair<int64_t, torch::Tensor>> rows;
    if (table_ == nullptr) return rows;
    const auto add = [&](const torch::Tensor& values, const std::vector<int64_t>& periods) {
      if (!values.defined()) return;
      for (size_t t = 0; t < periods.size(); ++t)
        rows.emplace_back(periods[t], of_sites(values[int64_t(t)], in_table_, NAN));
    };
    add(table_->history_exposure, history_at_);
    add(table_->exposure, table_at_);
    return rows;
  }

  // The period of the newest known exposure [S] before `index`, and that; of the table, where both have it.
  std::optional<std::pair<int64_t, torch::Tensor>> last_exposure(int64_t index) const {
    std::optional<std::pair<int64_t, torch::Tensor>> last;
    const auto offer = [&](int64_t period, const torch::Tensor& row) {
      if (period < index && (!last || period >= last->first) &&
          row.isnan().logical_not().any().item<bool>())
        last = {period, row};
    };
    if (file_.past.exposure.defined() && in_file_.ge(0).all().item<bool>())
      for (size_t n = 0; n < file_.past.times.size(); ++n)
        offer(file_.calendar.index(file_.past.times[n]),
              of_sites(file_.past.exposure[int64_t(n)], in_file_, NAN));
    for (const auto& [period, row] : exposure_of_table()) offer(period, row);
    return last;
  }

  // Column [S] of a feature in a row of the table; raises where it is not finite.
  void read_feature(int64_t row, int64_t feature, const std::string& name,
                    torch::Tensor column) const {
    column.copy_(of_sites(table_->x[row].select(-1, feature), in_table_, 0.0));
    const torch::Tensor bad = column.isfinite().logical_not();
    if (!bad.any().item<bool>()) return;
    const int64_t s = bad.nonzero()[0].item<int64_t>();
    TR_REQUIRE(false, "{}: features must be finite, got {} for feature '{}', site '{}' in {}",
               function_, column[s].item<double>(), name, out_.site_ids[size_t(s)],
               label(table_at_[size_t(row)]));
  }

  // The table's row of the latest period after training and before `index`; -1 for none.
  int64_t last_row_before(int64_t index) const {
    int64_t row = -1, latest = fitted_.empty() ? index : *fitted_.rbegin();
    for (size_t t = 0; t < table_at_.size(); ++t)
      if (table_at_[t] > latest && table_at_[t] < index) latest = table_at_[row = int64_t(t)];
    return row;
  }

  // ---- features and exposure --------------------------------------------------------------------
  torch::Tensor features() {
    const Standardizer& scaling = file_.standardizer;
    const int64_t periods = int64_t(wanted_.size()),
                  columns = int64_t(scaling.feature_names.size());
    torch::Tensor x = torch::zeros({periods, num_sites(), columns}, torch::kFloat);
    if (!needs_.features || scaling.kept.empty()) return scaling.transform(x);
    std::unordered_map<std::string, int64_t> in_table;
    if (table_ != nullptr && table_->x.defined()) {
      TR_REQUIRE(table_->x.dim() == 3 && table_->x.size(0) == table_->num_times() &&
                     table_->x.size(1) == table_->num_sites() &&
                     table_->x.size(2) == int64_t(table_->feature_names.size()),
                 "{}: x must have shape [T, S, P] = [{}, {}, {}], got {}", function_,
                 table_->num_times(), table_->num_sites(), table_->feature_names.size(),
                 table_->x.sizes());
      for (size_t p = 0; p < table_->feature_names.size(); ++p)
        in_table[table_->feature_names[p]] = int64_t(p);
    }
    std::vector<std::string> missing;
    std::string missing_at;
    for (const int64_t p : scaling.kept) {
      const std::string& name = scaling.feature_names[size_t(p)];
      const auto found = in_table.find(name);
      for (int64_t t = 0; t < periods; ++t) {
        const int64_t row = row_in_table_[size_t(t)];
        torch::Tensor column = x[t].select(-1, p);
        if (row >= 0 && found != in_table.end()) {
          read_feature(row, found->second, name, column);
        } else if (file_.last_features.defined() && file_.constant_features.defined() &&
                   file_.constant_features[p].item<bool>() && in_file_.ge(0).all().item<bool>()) {
          // One that never changed is carried forward: from the table, where it has newer ones.
          const auto newest = found == in_table.end() ? -1 : last_row_before(wanted_[size_t(t)]);
          if (newest < 0)
            column.copy_(of_sites(file_.last_features.select(-1, p), in_file_, 0.0));
          else
            read_feature(newest, found->second, name, column);
        } else {
          if (missing.empty() || missing.back() != name) missing.push_back(name);
          if (missing_at.empty()) missing_at = label(wanted_[size_t(t)]);
        }
      }
    }
    TR_REQUIRE(
        missing.empty(),
        "{}: the features of {} must be given, for the model needs them and they change over time; "
        "got none of {}. Give a table with rows for {} that has these columns; its counts may be "
        "blank.",
        function_, missing_at, listed(missing), missing_at);
    return scaling.transform(x);
  }

  torch::Tensor exposure() {
    const bool given = table_ != nullptr && table_->exposure.defined();
    torch::Tensor result =
        given ? of_wanted(table_->exposure, NAN)
              : torch::full({int64_t(wanted_.size()), num_sites()}, NAN, torch::kFloat);
    std::map<int64_t, std::vector<std::string>> carried;  // from the period of this number
    for (size_t t = 0; t < wanted_.size(); ++t) {
      torch::Tensor row = result[int64_t(t)];
      if (row_in_table_[t] >= 0 && given) continue;
      const auto last = row_in_table_[t] < 0 ? last_exposure(wanted_[t]) : std::nullopt;
      TR_REQUIRE(
          last.has_value(),
          "{}: exposure must be given [T, S], for the model was fitted to counts per exposure, got "
          "none for {}. Name its column.",
          function_, label(wanted_[t]));
      row.copy_(last->second);
      carried[last->first].push_back(label(wanted_[t]));
    }
    const torch::Tensor open = out_.open.defined() ? out_.open : torch::ones_like(result).gt(0);
    for (int64_t t = 0; t < result.size(0); ++t)
      check_exposure(result[t], open[t], wanted_[size_t(t)]);
    result = torch::where(open, result, 1.0);
    for (const auto& [from, periods] : carried)
      out_.notes.push_back("the exposure of " + listed(periods) + " is taken as that of " +
                           label(from) + ", the last one known");
    return result;
  }

  // ---- sites that open and close ------------------------------------------------------------------
  void find_open_sites() {
    const auto merged = [&](const std::vector<double>& in_file,
                            const std::vector<double>& in_table) {
      std::vector<double> times;
      if (in_file.empty() && in_table.empty()) return times;
      for (size_t s = 0; s < out_.site_ids.size(); ++s) {
        double time = NAN;
        const int64_t f = in_file_[int64_t(s)].item<int64_t>();
        if (!in_file.empty() && f >= 0) time = in_file[size_t(f)];
        if (!in_table.empty()) {
          const int64_t own = in_table_[int64_t(s)].item<int64_t>();
          if (own >= 0 && !std::isnan(in_table[size_t(own)])) time = in_table[size_t(own)];
        }
        times.push_back(time);
      }
      return times;
    };
    opened_ = merged(file_.opened, table_ == nullptr ? std::vector<double>() : table_->opened);
    closed_ = merged(file_.closed, table_ == nullptr ? std::vector<double>() : table_->closed);
  }

  torch::Tensor open_sites() {
    torch::Tensor open = torch::ones({int64_t(wanted_.size()), num_sites()}, torch::kBool);
    auto at = open.accessor<bool, 2>();
    std::set<std::string> left_out;
    for (size_t t = 0; t < wanted_.size(); ++t) {
      for (size_t s = 0; s < out_.site_ids.size(); ++s) {
        const bool shut = !closed_.empty() && !std::isnan(closed_[s]) &&
                          file_.calendar.index(closed_[s]) < wanted_[t];
        const bool early = !opened_.empty() && !std::isnan(opened_[s]) &&
                           file_.calendar.index(opened_[s]) > wanted_[t];
        if (!shut && !early) continue;
        at[int64_t(t)][int64_t(s)] = false;
        left_out.insert(out_.site_ids[s]);
      }
    }
    if (!left_out.empty())
      out_.notes.push_back(fmt::format("{} site(s) that are not open are left out: {}",
                                       left_out.size(),
                                       listed({left_out.begin(), left_out.end()})));
    return open;
  }

  // ---- the timeline ------------------------------------------------------------------------------
  void make_timeline() {
    const int64_t end = *std::ranges::max_element(wanted_);
    const int64_t first = known_.empty() ? end : std::min(known_.begin()->first, end);
    first_row_ = first;
    TR_REQUIRE(end - first <= kMostPeriods,
               "{}: times must be within {} periods of the known ones, got {}, {} periods after {}",
               function_, kMostPeriods, label(end), end - first, label(first));
    torch::Tensor timeline = torch::full({end - first, num_sites()}, NAN, torch::kFloat);
    for (const auto& [index, row] : known_)
      if (index < end) timeline[index - first].copy_(row);
    out_.model.timeline = timeline;
    if (file_.uses_exposure) out_.model.timeline_exposure = past_exposure(first, end - first);
    for (const int64_t index : wanted_)
      out_.model.rows.push_back(std::clamp<int64_t>(index - first, 0, end - first));
  }

  torch::Tensor windows() {
    const int64_t window = needs_.window;
    torch::Tensor result =
        torch::full({int64_t(wanted_.size()), num_sites(), window}, NAN, torch::kFloat);
    for (size_t t = 0; t < wanted_.size(); ++t) {
      for (int64_t w = 0; w < window; ++w) {
        const int64_t row = wanted_[t] - window + w - first_row_;
        if (row >= 0 && row < out_.model.timeline.size(0))
          result[int64_t(t)].select(-1, w).copy_(out_.model.timeline[row]);
      }
      torch::Tensor unknown = result[int64_t(t)].isnan();
      if (out_.open.defined()) {
        const torch::Tensor shut = out_.open[int64_t(t)].logical_not().unsqueeze(-1);
        unknown = unknown.logical_and(shut.logical_not());
      }
      if (!unknown.any().item<bool>()) continue;
      const torch::Tensor at = unknown.nonzero()[0];
      const int64_t lag = window - at[1].item<int64_t>();
      TR_REQUIRE(
          false,
          "{}: the {} periods before {} must have counts, for the model reads them, got none for "
          "site '{}' in {}. Add them to the table, or rank one period ahead.",
          function_, window, label(wanted_[t]), out_.site_ids[size_t(at[0].item<int64_t>())],
          label(wanted_[t] - lag));
    }
    return result.nan_to_num(0.0);
  }

  const char* function_;
  const ModelFile& file_;
  const Needs& needs_;
  const Panel* table_;
  RankerInputs out_;
  torch::Tensor in_table_,
      in_file_;  // [S] int64: each ranked site's column in the file, -1 if absent
  std::set<int64_t> fitted_, seen_;
  std::vector<int64_t> table_at_, history_at_;  // periods of the table's rows
  std::vector<int64_t> wanted_, row_in_table_;
  std::map<int64_t, torch::Tensor> known_;  // period -> counts [S], NaN where not known
  std::vector<double> opened_, closed_;
  int64_t first_row_ = 0;
};

}  // namespace

RankerInputs ranker_inputs(const char* function, const ModelFile& file, const Needs& needs,
                           const Panel* table, std::optional<int64_t> periods_ahead) {
  torch::NoGradGuard no_grad;
  return Merge(function, file, needs, table).inputs(periods_ahead);
}

}  // namespace topreach
