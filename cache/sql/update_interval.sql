UPDATE winners SET m_lo = :m_lo, m_hi = :m_hi
WHERE device_id = :device_id AND problem_id = :problem_id AND m = :m AND provenance = :provenance;
