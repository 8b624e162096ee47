#include "atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "../require.h"

namespace topreach {

namespace {

// 0, or the error number.
int write_all(int handle, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(handle, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : EIO;
    bytes.remove_prefix(size_t(n));
  }
  return 0;
}

// Follows links itself, since the last one may name a file that does not exist yet.
std::string target_of(const char* function, std::string path) {
  for (int links = 0; links < 40; ++links) {
    struct stat status{};
    if (lstat(path.c_str(), &status) != 0 || !S_ISLNK(status.st_mode)) return path;
    std::error_code error;
    const std::filesystem::path next = std::filesystem::read_symlink(path, error);
    TR_REQUIRE(!error, "{}: path must be a link that can be read, got {}", function, path);
    path = next.is_absolute() ? next.string()
                              : (std::filesystem::path(path).parent_path() / next).string();
  }
  TR_REQUIRE(false, "{}: path must not be a circle of links, got {}", function, path);
}

}  // namespace

void write_whole_file(const char* function, const std::string& given, std::string_view bytes) {
  const auto check = [&](int error) {
    TR_REQUIRE(error == 0, "{}: path could not be written, got {}: {}", function, given,
               std::strerror(error));
  };
  struct stat status{};
  // A link may lead to a pipe that has no path, as /dev/stdout does: open what was given.
  if (stat(given.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    TR_REQUIRE(!S_ISDIR(status.st_mode), "{}: path must be a file, got the folder {}", function,
               given);
    const int handle = open(given.c_str(), O_WRONLY | O_CLOEXEC);
    check(handle < 0 ? errno : 0);
    const int error = write_all(handle, bytes);
    const int closed = close(handle) == 0 ? 0 : errno;
    check(error != 0 ? error : closed);
    return;
  }
  const std::string path = target_of(function, given);
  const bool exists = stat(path.c_str(), &status) == 0;
  // The mode of a new file is 0666 without the process's umask, which open() applies.
  std::random_device random;
  std::string temporary;
  int handle = -1;
  for (int tries = 0; handle < 0 && tries < 100; ++tries) {
    temporary = fmt::format("{}.{:08x}.part", path, random());
    handle = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (handle < 0 && errno != EEXIST) break;
  }
  TR_REQUIRE(handle >= 0, "{}: path must be in a folder that can be written to, got {}: {}",
             function, given, std::strerror(errno));
  int error = write_all(handle, bytes);
  if (error == 0 && exists && fchmod(handle, status.st_mode & 07777) != 0) error = errno;
  if (error == 0 && fsync(handle) != 0) error = errno;
  if (close(handle) != 0 && error == 0) error = errno;
  if (error == 0 && std::rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) unlink(temporary.c_str());
  check(error);
}

std::string read_whole_file(const char* function, const std::string& path) {
  struct stat status{};
  TR_REQUIRE(stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode),
             "{}: path must be a file, got {}, where there is none", function, path);
  std::ifstream stream(path, std::ios::binary);
  std::string bytes(size_t(status.st_size), '\0');
  TR_REQUIRE(stream.read(bytes.data(), std::streamsize(bytes.size())),
             "{}: path must be readable, got {}, which could not be read: {}", function, path,
             std::strerror(errno));
  return bytes;
}

}  // namespace topreach
