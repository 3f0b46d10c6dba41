SELECT count(*) AS winners FROM winners;
