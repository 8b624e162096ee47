// A program's arguments between C++ and Python's dictionaries.
#pragma once

#include <pybind11/pybind11.h>

#include "../programs/program.h"

namespace topreach::python {

/// A dictionary, or pairs of a name and a value: numbers, strings, and lists of one of these. Raises
/// py::type_error for other values.
ProgramConfig to_config(const pybind11::handle& object);
pybind11::dict from_config(const ProgramConfig& config);

}  // namespace topreach::python
