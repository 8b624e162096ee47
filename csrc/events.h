// What a table of dated events says: when, where, of which types, with which marks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "calendar.h"

namespace topreach {

/// The arrays of a table of N events at I places, of S types, with Q marks. Time runs in days (or in the
/// table's own unit, where times are numbers) from the window's start.
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

/// An event at each of its nodes: an event of c types is c entries, at one time. Node u = place · S + type.
/// Entries ascend in time; at one time by event, then by type.
struct NodeEvents {
  std::vector<double> times;
  std::vector<int64_t> node, event;
  std::vector<double> share;  // 1/c: summed over nodes, it counts each event once
};

/// How often types occur together at each place, before each of B times.
struct SharedTypes {
  std::vector<double>
      together;  // [B, I, S, S]: events that name both types; on the diagonal, the one
  std::vector<double> events;  // [B, I]: events of any type
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
  /// Raises c10::ValueError where `data` is not as above; the message names the event.
  explicit Events(EventData data);

  /// Reads a file of `write_csv`. Raises c10::ValueError, naming the line, where it is not one.
  static Events read_csv(const std::string& path);
  /// Writes the events as UTF-8 text: docs/events.md has the format.
  void write_csv(const std::string& path) const;

  const EventData& data() const { return data_; }
  int64_t num_events() const { return int64_t(data_.times.size()); }
  int64_t num_places() const { return int64_t(data_.places.size()); }
  int64_t num_types() const { return int64_t(data_.types.size()); }
  int64_t num_nodes() const { return num_places() * num_types(); }

  NodeEvents node_events() const;

  /// Edges of the calendar's whole periods within (0, complete_through]; empty where there is none.
  std::vector<double> whole_periods(const Calendar& calendar) const;

  /// Edges of blocks over (0, complete_through]: 0, where periods of the calendar begin, those of `also`
  /// that lie within, and complete_through; ascending.
  std::vector<double> block_edges(const Calendar& calendar,
                                  const std::vector<double>& also = {}) const;

  /// Number of events in (edges[k], edges[k+1]], [B, I, S or M] for B + 1 ascending edges.
  std::vector<int64_t> counts(const std::vector<double>& edges, CountBy by) const;

  /// Number of events strictly before each of these ascending times, [B, I, S or M].
  std::vector<int64_t> counts_before(const std::vector<double>& times, CountBy by) const;

  /// The logarithm of each node's (place's, type's) own recent rate per unit of time, as known at each of
  /// these ascending times: of the n events in [t - length, t), log((n + 1/2) / (o + 1 / (2 r))). o: how
  /// much of that span comes after the first event or the window's start. r: the mean rate of all nodes in
  /// it, 1 / length where they had no event.
  std::vector<double> recent_rate(const std::vector<double>& times, double length,
                                  CountBy by) const;

  /// Of the events strictly before each of these ascending times. O(N S² + B I S²).
  SharedTypes shared_types(const std::vector<double>& times) const;

 private:
  int64_t width(CountBy by) const;
  void add(int64_t event, CountBy by, int64_t* row) const;

  EventData data_;
};

/// A number in (0, 1) that depends on an event's id alone: where in its day (or hour, ...) an event is
/// placed whose time is not known more exactly. Philox4x32-10 under the id's FNV-1a hash.
double event_shift(std::string_view id);

/// FNV-1a, 64 bits.
uint64_t stable_hash(std::string_view text);

}  // namespace topreach
