// Events as text: docs/events.md has the format.
#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "events.h"
#include "io/atomic_file.h"
#include "require.h"

namespace topreach {

namespace {

constexpr std::string_view kFirstLine = "# topreach events 1";
constexpr std::string_view kType = "type:", kMark = "mark:";

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"") == text.npos) return text;
  std::string made = "\"";
  for (char c : text) made += c == '"' ? "\"\"" : std::string(1, c);
  return made + "\"";
}

/// The lines of a file, one after the other, with their numbers.
class Lines {
 public:
  Lines(std::string_view text, const std::string& path) : rest_(text), path_(path) {}

  bool next(std::string_view& line) {
    if (rest_.empty()) return false;
    const size_t end = std::min(rest_.find('\n'), rest_.size());
    line = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    ++number_;
    return true;
  }

  void require(bool good, const char* wanted, std::string_view got) const {
    TR_REQUIRE(good, "Events.read_csv: line {} of '{}' must {}, got '{}'", number_, path_, wanted,
               got);
  }

  double number(std::string_view text) const {
    double value = 0.0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    require(error == std::errc() && end == text.data() + text.size(), "hold a number", text);
    return value;
  }

  std::vector<std::string> fields(std::string_view line) const {
    std::vector<std::string> made(1);
    bool inside = false;
    for (size_t i = 0; i < line.size(); ++i) {
      const char c = line[i];
      if (inside && c == '"' && i + 1 < line.size() && line[i + 1] == '"') {
        made.back() += line[++i];
      } else if (c == '"') {
        inside = !inside;
      } else if (c == ',' && !inside) {
        made.emplace_back();
      } else {
        made.back() += c;
      }
    }
    require(!inside, "close its quotes", line);
    return made;
  }

 private:
  std::string_view rest_;
  const std::string& path_;
  int64_t number_ = 0;
};

}  // namespace

void Events::write_csv(const std::string& path) const {
  const EventData& d = data_;
  std::string text = fmt::format("{}\n# start {} {}\n# complete_through {}\n# end {}\n", kFirstLine,
                                 d.start, d.dates ? "date" : "number", d.complete_through, d.end);
  for (const std::string& place : d.places) text += fmt::format("# place {}\n", place);
  text += "id,time,place";
  for (const std::string& type : d.types) text += "," + quoted(std::string(kType) + type);
  for (const std::string& mark : d.mark_names) text += "," + quoted(std::string(kMark) + mark);
  text += "\n";
  const size_t types = d.types.size(), marks = d.mark_names.size();
  for (size_t n = 0; n < d.times.size(); ++n) {
    text +=
        fmt::format("{},{},{}", quoted(d.ids[n]), d.times[n], quoted(d.places[size_t(d.place[n])]));
    for (size_t s = 0; s < types; ++s) text += d.flags[n * types + s] ? ",1" : ",0";
    for (size_t q = 0; q < marks; ++q) text += fmt::format(",{}", d.marks[n * marks + q]);
    text += "\n";
  }
  write_whole_file("Events.write_csv", path, text);
}

Events Events::read_csv(const std::string& path) {
  const std::string text = read_whole_file("Events.read_csv", path);
  Lines lines(text, path);
  std::string_view line;
  const bool any = lines.next(line);
  lines.require(any && line == kFirstLine, "say that this is a table of events", line);
  EventData d;
  std::unordered_map<std::string, int64_t> place_at;
  bool header = false;
  while (!header && lines.next(line)) {
    header = !line.starts_with("# ");
    if (header) break;
    const std::string_view entry = line.substr(2), key = entry.substr(0, entry.find(' '));
    const std::string_view value = entry.substr(std::min(key.size() + 1, entry.size()));
    if (key == "start") {
      const size_t space = std::min(value.find(' '), value.size());
      const std::string_view kind = value.substr(std::min(space + 1, value.size()));
      lines.require(kind == "date" || kind == "number", "say 'date' or 'number'", line);
      d.start = lines.number(value.substr(0, space));
      d.dates = kind == "date";
    } else if (key == "complete_through") {
      d.complete_through = lines.number(value);
    } else if (key == "end") {
      d.end = lines.number(value);
    } else {
      lines.require(key == "place", "begin '# start', '# complete_through', '# end' or '# place'",
                    line);
      place_at.emplace(value, int64_t(d.places.size()));
      d.places.emplace_back(value);
    }
  }
  const auto names = lines.fields(header ? line : "");
  const auto is = [&](size_t i, const char* name) { return i < names.size() && names[i] == name; };
  lines.require(is(0, "id") && is(1, "time") && is(2, "place"), "begin id,time,place", line);
  for (size_t i = 3; i < names.size(); ++i) {
    const bool mark = names[i].starts_with(kMark);
    lines.require(mark || (names[i].starts_with(kType) && d.mark_names.empty()),
                  "name columns type:..., then mark:...", names[i]);
    (mark ? d.mark_names : d.types).push_back(names[i].substr(5));
  }
  while (lines.next(line)) {
    const auto row = lines.fields(line);
    lines.require(row.size() == names.size(), "have as many fields as the header", line);
    const auto place = place_at.find(row[2]);
    lines.require(place != place_at.end(), "name a place of the list above", row[2]);
    d.ids.push_back(row[0]);
    d.times.push_back(lines.number(row[1]));
    d.place.push_back(place->second);
    for (size_t i = 3; i < row.size(); ++i) {
      if (i < 3 + d.types.size()) {
        lines.require(row[i] == "0" || row[i] == "1", "have 0 or 1 for a type", row[i]);
        d.flags.push_back(row[i] == "1");
      } else {
        d.marks.push_back(lines.number(row[i]));
      }
    }
  }
  return Events(std::move(d));
}

}  // namespace topreach
