#include "cache/sqlite.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "tests/cache/samples.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using std::chrono::milliseconds;

Database memory() { return {":memory:", Database::Access::kCreate, milliseconds(0)}; }

std::int64_t count(const Database& database) {
  Statement select(database, "SELECT count(*) AS n FROM t");
  select.step();
  return select.int64("n");
}

TEST(Sqlite, ValuesComeBackAsTheyWere) {
  const Database database = memory();
  database.execute("CREATE TABLE t (i INTEGER, r REAL, s TEXT, b BLOB, z TEXT); -- a comment\n");
  const std::string bytes("a\0b", 3);
  Statement(database, "INSERT INTO t VALUES (:i, :r, :s, :b, :z)")
      .bind(":i", std::numeric_limits<std::int64_t>::min())
      .bind(":r", 0.1)
      .bind(":s", std::string_view())
      .bind_blob(":b", bytes)
      .bind_or_null(":z", "")
      .run();
  Statement select(database, "SELECT * FROM t");
  ASSERT_TRUE(select.step());
  EXPECT_EQ(select.int64("i"), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(select.real("r"), 0.1);
  EXPECT_FALSE(select.is_null("s"));
  EXPECT_EQ(select.text("s"), "");
  EXPECT_EQ(select.bytes("b"), bytes);
  EXPECT_TRUE(select.is_null("z"));
  EXPECT_TRUE(std::isnan(select.real("z")));
  EXPECT_FALSE(select.step());
}

TEST(Sqlite, StatementsRunAgain) {
  const Database database = memory();
  database.execute("CREATE TABLE t (i INTEGER)");
  Statement insert(database, "INSERT INTO t VALUES (:i)");
  for (int i = 0; i < 3; ++i) insert.bind(":i", i).run();
  EXPECT_EQ(count(database), 3);
}

TEST(Sqlite, TransactionsHappenAsAWholeOrNotAtAll) {
  const Database database = memory();
  database.execute("CREATE TABLE t (i INTEGER)");
  {
    const Transaction abandoned(database, Transaction::Kind::kWrite);
    database.execute("INSERT INTO t VALUES (1)");
  }
  EXPECT_EQ(count(database), 0);
  Transaction transaction(database, Transaction::Kind::kWrite);
  database.execute("INSERT INTO t VALUES (1)");
  transaction.commit();
  EXPECT_EQ(count(database), 1);
}

TEST(Sqlite, DefectsAreToldFromTheStateOfTheFile) {
  const Database database = memory();
  samples::expect_error(ErrorCode::kInternal, "syntax error", [&] { database.execute("SELEKT"); });
  database.execute("CREATE TABLE t (i INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
  samples::expect_error(ErrorCode::kInternal, "UNIQUE constraint",
                        [&] { database.execute("INSERT INTO t VALUES (1)"); });
}

TEST(SqliteDeathTest, UnknownNamesAbort) {
  const Database database = memory();
  Statement select(database, "SELECT :a AS a");
  EXPECT_DEATH(select.bind(":b", 1), "check failed");
  ASSERT_TRUE(select.step());
  EXPECT_DEATH(static_cast<void>(select.integer("b")), "check failed");
}

}  // namespace
}  // namespace w4tune
