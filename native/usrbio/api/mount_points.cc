#include "usrbio/api/mount_points.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

namespace fs3::usrbio {
namespace {

constexpr std::string_view kVirtual = "3fs-virt";
constexpr size_t kFieldsMin = 10;

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    size_t end = std::min(text.find(separator), text.size());
    if (end > 0) parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

// Space, tab, newline and backslash are written as three octal digits.
std::string plain(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    bool escaped = text[i] == '\\' && i + 3 < text.size();
    if (!escaped) {
      out.push_back(text[i]);
      continue;
    }
    out.push_back(
        static_cast<char>(std::strtol(std::string(text.substr(i + 1, 3)).c_str(), nullptr, 8)));
    i += 3;
  }
  return out;
}

bool is_directory(const std::string& path) {
  struct stat info{};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

}  // namespace

std::vector<std::string> mount_candidates(std::string_view mountinfo, bool any_type) {
  std::vector<std::string> found;
  for (std::string_view line : split(mountinfo, '\n')) {
    auto fields = split(line, ' ');
    if (fields.size() < kFieldsMin) continue;
    std::string_view type = fields[fields.size() - 3];
    if (!any_type && type != "fuse.hf3fs" && type != "fuse.fs3") continue;
    std::string place = plain(fields[4]);
    size_t slash = place.rfind('/');
    if (place.substr(slash + 1) == kVirtual) place.resize(std::max<size_t>(slash, 1));
    found.push_back(std::move(place));
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  return found;
}

bool lies_in(std::string_view path, std::string_view mount_point) {
  if (mount_point == "/") return true;
  return path.starts_with(mount_point) &&
         (path.size() == mount_point.size() || path[mount_point.size()] == '/');
}

std::string find_mount_point(const char* path) {
  char* real = realpath(path, nullptr);
  if (real == nullptr) return {};
  std::string whole(real);
  std::free(real);
  std::ifstream file("/proc/self/mountinfo");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  const char* unchecked = std::getenv("HF3FS_USRBIO_DONT_CHECKFS_FOR_MP");
  bool any_type = unchecked != nullptr && std::strcmp(unchecked, "yes") == 0;
  for (const std::string& place : mount_candidates(text, any_type)) {
    if (!lies_in(whole, place)) continue;  // others are not touched: they may be dead
    std::string base = place == "/" ? std::string() : place;
    if (is_directory(base + "/" + std::string(kVirtual))) return place;
  }
  return {};
}

}  // namespace fs3::usrbio
