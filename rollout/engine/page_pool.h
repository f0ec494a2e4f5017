// PagePool hands out the pages of the KV cache, counts who shares them, and remembers what full
// pages hold, so that a prompt seen before is not computed again.
//
// A page is free, in use by one or more sequences, or unused but remembered; the last kind is given
// away when free ones run out, least recently used first. What a page holds is named by a chain of
// keys: the policy version and all tokens up to the page's end. Page 0 is never handed out: padding
// writes there. Not thread-safe.

#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>
#include <vector>

#include "absl/types/span.h"

#include "rollout/engine/policy_version.h"

namespace rein::rollout {

class PagePool {
 public:
  // `pages` counts page 0; at least 2. Without `remember` nothing is looked up or kept.
  PagePool(int32_t pages, int32_t page_tokens, bool remember);

  int32_t page_tokens() const { return page_tokens_; }
  // Pages that can be handed out in all.
  int32_t capacity() const { return static_cast<int32_t>(pages_.size()) - 1; }
  // Pages that Take() can still give: free ones and unused remembered ones.
  int32_t available() const { return static_cast<int32_t>(free_.size() + unused_.size()); }

  // A page of one's own; nothing when none is available.
  std::optional<int32_t> Take();
  // One more user of a page that is in use or remembered.
  void Share(int32_t page);
  // One user less.
  void Release(int32_t page);

  // Remembered pages that hold the beginning of `tokens` as computed under `version`, whole pages
  // only, not shared yet.
  std::vector<int32_t> Match(const PolicyVersion& version, absl::Span<const uint32_t> tokens) const;
  // How many of these pages count as available now, and how many have one user only.
  int32_t CountUnused(absl::Span<const int32_t> pages) const;
  int32_t CountOwn(absl::Span<const int32_t> pages) const;
  // Remembers `page`, the `index`-th of a sequence, as holding the tokens of that page; the pages
  // before it hold those before. `tokens` must reach to the end of the page.
  void Remember(int32_t page, const PolicyVersion& version, absl::Span<const uint32_t> tokens,
                int32_t index);
  // Forgets what pages hold; pages in use stay in use.
  void Forget();

 private:
  struct Page {
    int32_t users = 0;
    std::optional<uint64_t> key;         // set: remembered
    std::list<int32_t>::iterator place;  // in unused_, when remembered without users
  };
  struct Entry {
    int32_t page;
    uint64_t parent;
    std::vector<uint32_t> tokens;  // of this page, against collisions of keys
  };

  // The entry of the page that ends with `tokens`, when the one before it has key `parent`.
  const Entry* Find(uint64_t parent, absl::Span<const uint32_t> tokens, uint64_t* key) const;
  void Drop(int32_t page);

  const int32_t page_tokens_;
  const bool remember_;
  std::vector<Page> pages_;
  std::vector<int32_t> free_;
  std::list<int32_t> unused_;  // remembered without users, least recently used first
  std::unordered_map<uint64_t, Entry> entries_;
};

}  // namespace rein::rollout
