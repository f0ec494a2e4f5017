// How commands print: tables for people, JSON and YAML for programs, names for shells.

#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include <google/protobuf/message.h>

namespace rein::cli {

enum class Format { kTable, kJson, kYaml, kName };

// As proto3 JSON writes it; field names as in the proto file.
std::string ToJson(const google::protobuf::Message& message);
// The same content as YAML.
std::string ToYamlText(const google::protobuf::Message& message);

// Data goes to standard output.
void Print(const std::string& text);
// "error: ..." on standard error; returns the exit code.
int PrintError(const absl::Status& status);
// Hints and progress go to standard error.
void Hint(const std::string& text);
// Asks on a terminal; elsewhere only `yes`, a flag, says so.
bool Confirmed(const std::string& question, bool yes);

// Standard output is a terminal that understands colour and cursor movement.
bool IsLiveTerminal();
// Columns of the terminal; 100 when there is none.
int TerminalWidth();
// For tables: the same; 0, so that nothing is cut, where standard output is no terminal.
size_t TableWidth();

}  // namespace rein::cli
