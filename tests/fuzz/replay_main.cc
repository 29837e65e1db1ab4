// Replays a corpus without libFuzzer, so that every build and every compiler runs it:
//   NAME_replay DIRECTORY
// Every file is fed once. Files named golden-* must be accepted, and then also every prefix of them
// and every change of a single byte is fed; where the target is sealed, each of these must be
// refused (an equal message cannot come out of other bytes there).
#include <google/protobuf/stubs/logging.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "fuzz.h"

namespace fs3::fuzz {
namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// What is being fed, for the message when a check fails.
void refused(const char* change, size_t at, std::string_view input) {
  if (at < kSealedFrom || !accepts(input)) return;
  std::fprintf(stderr, "accepted after a %s at byte %zu\n", change, at);
  FS3_CHECK(!"a sealed input was accepted after a change");
}

size_t replay_changes(const std::string& golden) {
  size_t fed = 0;
  for (size_t size = 0; size < golden.size(); ++size, ++fed) {
    std::string_view prefix = std::string_view(golden).substr(0, size);
    if (kSealedFrom == kNotSealed) {
      (void)accepts(prefix);
    } else {
      refused("cut", std::max(size, kSealedFrom), prefix);
    }
  }
  std::string changed = golden;
  for (size_t at = 0; at < golden.size(); ++at) {
    for (int mask = 1; mask < 256; ++mask, ++fed) {
      changed[at] = static_cast<char>(golden[at] ^ mask);
      if (at < kSealedFrom) {
        (void)accepts(changed);
      } else {
        refused("change", at, changed);
      }
    }
    changed[at] = golden[at];
  }
  return fed;
}

int replay(const char* directory) {
  // In the order of names: the same on every machine.
  std::set<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    paths.insert(entry.path());
  }
  size_t fed = 0;
  size_t goldens = 0;
  for (const auto& path : paths) {
    std::string input = read_file(path);
    bool accepted = accepts(input);
    ++fed;
    if (!path.filename().string().starts_with("golden-")) continue;
    if (!accepted) {
      std::fprintf(stderr, "%s is refused\n", path.c_str());
      return 1;
    }
    ++goldens;
    fed += replay_changes(input);
  }
  std::printf("%zu files, %zu of them golden, %zu inputs\n", paths.size(), goldens, fed);
  return goldens == 0 ? 1 : 0;
}

}  // namespace
}  // namespace fs3::fuzz

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s CORPUS_DIRECTORY\n", argv[0]);
    return 2;
  }
  google::protobuf::SetLogHandler(nullptr);  // a line for every string that is not UTF-8
  return fs3::fuzz::replay(argv[1]);
}
