// A table of dated events: the time, place, types and marks of each.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "calendar.h"

namespace topreach {

/// The arrays of a table of N events at I places, of S types, with Q marks. Time runs in days (or in the
/// table's own unit, if its times are numbers) from the window's start.
struct EventData {
  std::vector<std::string> places;      // I, distinct
  std::vector<std::string> types;       // S, distinct
  std::vector<std::string> mark_names;  // Q, distinct
  std::vector<std::string> ids;         // N, distinct
  std::vector<double> times;            // N, ascending; <= 0: history, from before the window
  std::vector<int64_t> place;           // N, from 0 to I - 1
  std::vector<uint8_t> flags;           // [N, S], 0 or 1, at least one in each row
  std::vector<double> marks;            // [N, Q], finite
  /// Records are complete for times in (0, complete_through]; the table was drawn at `end`.
  double complete_through = 0.0, end = 0.0;
  /// The window's start: a number, or days since 1970-01-01 if `dates`.
  double start = 0.0;
  bool dates = false;
};

/// Events as entries at nodes: an event of c types becomes c entries with the same time. Node u = place · S
/// + type. Entries ascend in time; at equal times they are in order of event, then of type.
struct NodeEvents {
  std::vector<double> times;
  std::vector<int64_t> node, event;
  std::vector<double> share;  // 1/c: summed over nodes, it counts each event once
};

/// How often types occur together at each place, before each of B times.
struct SharedTypes {
  std::vector<double> together;  // [B, I, S, S]: events that name both types; diagonal: that type
  std::vector<double> events;    // [B, I]: events of any type
};

/// What is counted: events at a place (each once), of a type anywhere, or at a node.
enum class CountBy { kPlace, kType, kNode };

/// "place", "type" or "node". Raises c10::ValueError for another name.
CountBy count_by(const char* function, std::string_view name);

/// A table of dated events, checked and immutable.
///
///   const auto events = topreach::Events::read_csv("deaths.csv");  // as Python's Events.to_csv wrote it
///   events.counts({0, 30, 60}, topreach::CountBy::kPlace)          // [2, I]: (0, 30] and (30, 60]
class Events {
 public:
  /// Raises c10::ValueError if `data` is not as described above; the message names the event.
  explicit Events(EventData data);

  /// Reads a file in the format of `write_csv`. Raises c10::ValueError, naming the line, for any other.
  static Events read_csv(const std::string& path);
  /// Writes the events as UTF-8 text: docs/events.md has the format.
  void write_csv(const std::string& path) const;

  const EventData& data() const { return data_; }
  int64_t num_events() const { return int64_t(data_.times.size()); }
  int64_t num_places() const { return int64_t(data_.places.size()); }
  int64_t num_types() const { return int64_t(data_.types.size()); }
  int64_t num_nodes() const { return num_places() * num_types(); }

  NodeEvents node_events() const;

  /// Edges of the calendar's whole periods within (0, complete_through]; empty if there is none.
  std::vector<double> whole_periods(const Calendar& calendar) const;

  /// Ascending edges of blocks over (0, complete_through]: 0, the times at which periods of the calendar
  /// begin, the times of `also` that lie within, and complete_through.
  std::vector<double> block_edges(const Calendar& calendar,
                                  const std::vector<double>& also = {}) const;

  /// Number of events in (edges[k], edges[k+1]], [B, I, S or M] for B + 1 ascending edges.
  std::vector<int64_t> counts(const std::vector<double>& edges, CountBy by) const;

  /// Number of events strictly before each of these ascending times, [B, I, S or M].
  std::vector<int64_t> counts_before(const std::vector<double>& times, CountBy by) const;

  /// Logarithm of the recent rate per unit of time of each node (place, type), as known at each of these
  /// ascending times t:  log((n + 1/2) / (o + 1 / (2 r))),  n the number of its events in [t - length, t).
  /// o: the length of the part of that span that comes after the first event or the window's start, whichever
  /// is earlier. r: the mean rate of all nodes in the span, or 1 / length if they had no event.
  std::vector<double> recent_rate(const std::vector<double>& times, double length,
                                  CountBy by) const;

  /// Counts over the events strictly before each of these ascending times. O(N S² + B I S²).
  SharedTypes shared_types(const std::vector<double>& times) const;

 private:
  int64_t width(CountBy by) const;
  void add(int64_t event, CountBy by, int64_t* row) const;

  EventData data_;
};

/// A number in (0, 1) that depends on an event's id alone. An event whose time is known only to the day
/// (or hour, ...) is placed at this fraction of it. Philox4x32-10 under the id's FNV-1a hash.
double event_shift(std::string_view id);

/// FNV-1a, 64 bits.
uint64_t stable_hash(std::string_view text);

}  // namespace topreach
