UPDATE winners SET m_lo = NULL, m_hi = NULL
WHERE device_id = :device_id AND problem_id = :problem_id;
