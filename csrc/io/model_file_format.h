// Shared by reading and writing of a model file.
#pragma once

#include <string>

#include "model_file.h"

namespace topreach {

inline constexpr const char* kModelFileFormat = "topreach-model";

struct CheckedArchive {
  std::string archive, digest;
};

/// The zip archive without its comment, and the digest, of bytes whose digest agrees. Raises
/// c10::ValueError for bytes that were damaged or cut short.
CheckedArchive checked_archive(const std::string& bytes, const std::string& path);

/// The archive with its digest as a comment.
CheckedArchive with_digest(std::string archive);

/// Raises c10::ValueError, naming `function`, for parts that do not fit each other. own_program: the user
/// gives the program, so the one in the file is not read.
void check_model_file(const char* function, const ModelFile& file, bool own_program = false);

}  // namespace topreach
