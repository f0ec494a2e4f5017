#include "rollout/engine/page_pool.h"

#include <algorithm>

#include "common/random/philox.h"

namespace rein::rollout {
namespace {

uint64_t RootKey(const PolicyVersion& version) {
  return random::DeriveKey(random::DeriveKey(0x6b76, version.lineage), version.number);
}

uint64_t NextKey(uint64_t parent, absl::Span<const uint32_t> tokens) {
  for (uint32_t token : tokens) parent = random::DeriveKey(parent, token);
  return parent;
}

}  // namespace

PagePool::PagePool(int32_t pages, int32_t page_tokens, bool remember)
    : page_tokens_(page_tokens), remember_(remember), pages_(pages) {
  for (int32_t page = pages - 1; page > 0; --page) free_.push_back(page);
}

std::optional<int32_t> PagePool::Take() {
  if (free_.empty() && !unused_.empty()) Drop(unused_.front());
  if (free_.empty()) return std::nullopt;
  int32_t page = free_.back();
  free_.pop_back();
  pages_[page].users = 1;
  return page;
}

void PagePool::Share(int32_t page) {
  if (pages_[page].users++ == 0) unused_.erase(pages_[page].place);
}

void PagePool::Release(int32_t page) {
  if (--pages_[page].users > 0) return;
  if (pages_[page].key.has_value()) {
    pages_[page].place = unused_.insert(unused_.end(), page);
  } else {
    free_.push_back(page);
  }
}

const PagePool::Entry* PagePool::Find(uint64_t parent, absl::Span<const uint32_t> tokens,
                                      uint64_t* key) const {
  *key = NextKey(parent, tokens);
  auto it = entries_.find(*key);
  if (it == entries_.end() || it->second.parent != parent ||
      absl::MakeConstSpan(it->second.tokens) != tokens) {
    return nullptr;
  }
  return &it->second;
}

std::vector<int32_t> PagePool::Match(const PolicyVersion& version,
                                     absl::Span<const uint32_t> tokens) const {
  std::vector<int32_t> pages;
  uint64_t parent = RootKey(version);
  const size_t size = static_cast<size_t>(page_tokens_);
  for (size_t begin = 0; begin + size <= tokens.size(); begin += size) {
    uint64_t key;
    const Entry* entry = Find(parent, tokens.subspan(begin, size), &key);
    if (entry == nullptr) break;
    pages.push_back(entry->page);
    parent = key;
  }
  return pages;
}

int32_t PagePool::CountUnused(absl::Span<const int32_t> pages) const {
  return static_cast<int32_t>(std::count_if(
      pages.begin(), pages.end(), [this](int32_t page) { return pages_[page].users == 0; }));
}

int32_t PagePool::CountOwn(absl::Span<const int32_t> pages) const {
  return static_cast<int32_t>(std::count_if(
      pages.begin(), pages.end(), [this](int32_t page) { return pages_[page].users == 1; }));
}

void PagePool::Remember(int32_t page, const PolicyVersion& version,
                        absl::Span<const uint32_t> tokens, int32_t index) {
  if (!remember_ || pages_[page].key.has_value()) return;
  const size_t size = static_cast<size_t>(page_tokens_);
  const size_t begin = size * static_cast<size_t>(index);
  uint64_t parent = NextKey(RootKey(version), tokens.subspan(0, begin));
  absl::Span<const uint32_t> own = tokens.subspan(begin, size);
  uint64_t key = NextKey(parent, own);
  bool added = entries_.try_emplace(key, Entry{page, parent, {own.begin(), own.end()}}).second;
  if (added) pages_[page].key = key;
}

void PagePool::Forget() {
  entries_.clear();
  for (Page& page : pages_) page.key.reset();
  free_.insert(free_.end(), unused_.begin(), unused_.end());
  unused_.clear();
}

// Makes an unused remembered page free.
void PagePool::Drop(int32_t page) {
  entries_.erase(*pages_[page].key);
  pages_[page].key.reset();
  unused_.erase(pages_[page].place);
  free_.push_back(page);
}

}  // namespace rein::rollout
