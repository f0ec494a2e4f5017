// How matrices and modules are named by adapters: ours, the file's, and what of them can be updated or saved whole. For
// lora.cc and adapter_folder.cc.

#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/models/model_folder.h"
#include "common/models/tensor_place.h"
#include "common/weights/registry.h"

namespace rein::models {

// A matrix by our name and by the file's, both without ".weight".
struct Matrix {
  std::string name, module;
  weights::ParameterSpec spec;
  TensorPlace place;
};

// A matrix's tensor without ".weight".
std::string ModuleOf(const std::string& tensor);

// Null for a matrix that can have an update, else why it has none.
const char* WhyNone(const std::string& name, const TensorPlace& place);

// Every matrix of the base.
std::vector<Matrix> MatricesOf(const ModelDescription& model);

// By which a parameter can be meant: ours and the file's, with and without .weight or .bias.
std::vector<std::string> NamesOf(const ModelDescription& model, const weights::ParameterSpec& spec);

// A tensor of the file without its last name.
std::string OwnerOf(const std::string& tensor);

// Empty: the parameter can be trained whole beside updates.
std::string WhyNotSaved(const ModelDescription& model, const weights::ParameterSpec& spec);

}  // namespace rein::models
