#include "common/models/tensor_place.h"

#include <algorithm>
#include <cctype>

namespace rein::models {

TensorPlace WholeTensor(std::string tensor) { return {std::move(tensor), {}, 0, {}, {}}; }

TensorPlace RowsOf(std::string tensor, int64_t total, int64_t columns, int64_t first, int64_t rows) {
  if (columns == 0) return {std::move(tensor), {total}, first, {rows}, {1}};
  return {std::move(tensor), {total, columns}, first * columns, {rows, columns}, {columns, 1}};
}

TensorPlace GroupedRowsOf(std::string tensor, int64_t groups, int64_t per_group, int64_t columns,
                          int64_t first, int64_t rows) {
  const int64_t width = std::max<int64_t>(columns, 1);
  TensorPlace place{std::move(tensor), {groups * per_group, columns}, first * width,
                    {groups, rows, width}, {per_group * width, width, 1}};
  if (columns == 0) place.shape.pop_back();
  return place;
}

TensorPlace TransposedOf(std::string tensor, int64_t columns, int64_t total, int64_t first,
                         int64_t rows) {
  return {std::move(tensor), {columns, total}, first, {rows, columns}, {1, total}};
}

std::string MappedName(const NameMap& map, absl::string_view parameter) {
  for (const auto& [ours, theirs] : map) {
    std::vector<absl::string_view> numbers;
    size_t at = 0;
    bool opens = true;
    for (size_t i = 0; opens && i < ours.size(); ++i) {
      if (ours[i] != '#') {
        opens = at < parameter.size() && parameter[at++] == ours[i];
        continue;
      }
      const size_t begin = at;
      while (at < parameter.size() && std::isdigit(static_cast<unsigned char>(parameter[at]))) ++at;
      opens = at > begin;
      numbers.push_back(parameter.substr(begin, at - begin));
    }
    if (!opens) continue;
    std::string name;
    size_t next = 0;
    for (char c : theirs) {
      if (c == '#') {
        name.append(numbers[next].data(), numbers[next].size());
        ++next;
      } else {
        name += c;
      }
    }
    name.append(parameter.data() + at, parameter.size() - at);
    return name;
  }
  return std::string(parameter);
}

}  // namespace rein::models
