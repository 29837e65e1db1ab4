// Reads proto/vectors/*.json: as much JSON as they use (no escapes, no fractions).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace fs3 {

struct Json {
  std::string text;
  uint64_t number = 0;
  std::vector<Json> items;
  std::map<std::string, Json> members;

  const Json& operator[](const std::string& name) const { return members.at(name); }
  // Text of hex digits as bytes.
  std::string bytes() const {
    std::string out;
    for (size_t i = 0; i + 1 < text.size(); i += 2) {
      out += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
    }
    return out;
  }
  template <size_t size>
  std::array<uint8_t, size> array() const {
    std::array<uint8_t, size> out{};
    std::string raw = bytes();
    EXPECT_EQ(raw.size(), size);
    std::copy(raw.begin(), raw.end(), out.begin());
    return out;
  }
};

class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : left_(text) {}

  Json value() {
    skip();
    if (take('{')) return object();
    if (take('[')) return list();
    if (take('"')) return string();
    Json json;
    size_t digits = 0;
    while (digits < left_.size() && std::isdigit(static_cast<unsigned char>(left_[digits]))) {
      ++digits;
    }
    EXPECT_GT(digits, 0u) << left_.substr(0, 40);
    json.number = std::stoull(std::string(left_.substr(0, digits)));
    left_.remove_prefix(digits);
    return json;
  }

 private:
  void skip() {
    while (!left_.empty() && std::isspace(static_cast<unsigned char>(left_[0]))) {
      left_.remove_prefix(1);
    }
  }
  bool take(char c) {
    skip();
    if (left_.empty() || left_[0] != c) return false;
    left_.remove_prefix(1);
    return true;
  }
  Json string() {
    size_t end = left_.find('"');
    Json json;
    json.text = std::string(left_.substr(0, end));
    left_.remove_prefix(end + 1);
    return json;
  }
  Json list() {
    Json json;
    if (take(']')) return json;
    do {
      json.items.push_back(value());
    } while (take(','));
    EXPECT_TRUE(take(']'));
    return json;
  }
  Json object() {
    Json json;
    if (take('}')) return json;
    do {
      EXPECT_TRUE(take('"'));
      std::string name = string().text;
      EXPECT_TRUE(take(':'));
      json.members.emplace(std::move(name), value());
    } while (take(','));
    EXPECT_TRUE(take('}'));
    return json;
  }

  std::string_view left_;
};

inline Json read_vectors(const std::string& name) {
  std::ifstream file(std::string(FS3_SOURCE_ROOT) + "/proto/vectors/" + name + ".json");
  EXPECT_TRUE(file.good()) << name;
  std::stringstream text;
  text << file.rdbuf();
  std::string whole = text.str();
  return JsonReader(whole).value();
}

}  // namespace fs3
