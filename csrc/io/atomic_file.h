// Files that are written whole or not at all.
#pragma once

#include <string>
#include <string_view>

namespace topreach {

/// Writes `bytes` to `path`. A plain file is replaced in one step: the bytes go to a new file beside it,
/// which then takes its name. If anything fails (a full disk, for instance), the old file stays as it was. A
/// symbolic link stays a link: the file that it names is written. A device or a pipe is written to, and
/// never replaced.
///
/// Raises c10::ValueError, naming `function`, if the file cannot be written.
void write_whole_file(const char* function, const std::string& path, std::string_view bytes);

/// The bytes of a plain file. Raises c10::ValueError, naming `function`, if there is none.
std::string read_whole_file(const char* function, const std::string& path);

}  // namespace topreach
