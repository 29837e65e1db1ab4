#include "engine/dedup_rows.h"

#include <algorithm>

#include "base/check.h"

namespace fs3::engine {

bool DedupRows::put(DedupRow& row, std::vector<DedupRow>& evicted) {
  Channel channel = channel_of(row);
  auto known = rows_.find(channel);
  if (known != rows_.end()) {
    if (known->second.identity.sequence > row.identity.sequence) return false;
    order_.erase({known->second.touched, channel});
  }
  row.touched = ++touches_;
  rows_[channel] = row;
  order_.emplace(row.touched, channel);
  while (rows_.size() > kDedupRowsMax && evicted.size() < kDedupEvictedMax) {
    auto oldest = order_.begin();
    auto place = rows_.find(oldest->second);
    FS3_CHECK(place != rows_.end());
    evicted.push_back(place->second);
    rows_.erase(place);
    order_.erase(oldest);
  }
  FS3_CHECK(rows_.size() == order_.size());
  return true;
}

void DedupRows::load(const DedupRow& row) {
  auto [place, fresh] = rows_.try_emplace(channel_of(row), row);
  FS3_CHECK(fresh);  // the channel is in the key
  order_.emplace(row.touched, place->first);
  touches_ = std::max(touches_, row.touched);
}

void DedupRows::clear() {
  rows_.clear();
  order_.clear();
}

std::vector<DedupRow> DedupRows::in_order() const {
  std::vector<DedupRow> rows;
  rows.reserve(rows_.size());
  for (const auto& [touched, channel] : order_) rows.push_back(rows_.at(channel));
  return rows;
}

}  // namespace fs3::engine
