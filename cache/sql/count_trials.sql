SELECT COUNT(*) AS trials FROM trials;
